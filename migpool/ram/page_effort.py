"""What the jobs of a round really sent of the memory, and which part of their time that took.

A page of zeros is looked through and named, but crosses as eight bytes. If its size counted, the rate would be too
high, and the expected downtime too short; if only its time counted, the rate would be too low. So neither does: all
that is left at the stop is taken to have content.

The time is the jobs' own, on all threads together. The zeros' part of it are the looks at packets, by how many of their
pages hold zeros, and the sending of packets that hold nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, cast

from migpool.core.effects import SendPages, TakePages
from migpool.core.interpreter import Handlers
from migpool.precopy.rounds import Crossed

if TYPE_CHECKING:
    from migpool.wire.rampacket import PagePacket


class PageEffort:
    """Watches the effects of the memory's jobs, on any thread.

    Arguments:
        clock: nanoseconds.
    """

    def __init__(self, clock: Callable[[], int] = monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = self._nanoseconds = self._for_zeros = 0

    def watch(self, handlers: Handlers) -> None:
        """Time the effects that ``handlers`` perform by now."""
        take, send = handlers[TakePages], handlers[SendPages]

        def taken(effect: TakePages) -> list[PagePacket] | None:
            begin = self._clock()
            packets = cast("list[PagePacket] | None", take(effect))
            if packets is not None:
                took = self._clock() - begin
                zero = sum(packet.zero for packet in packets)
                self._add(0, took, took * zero // (zero + sum(packet.normal for packet in packets)))
            return packets

        def sent(effect: SendPages) -> None:
            begin = self._clock()
            send(effect)
            took = self._clock() - begin
            size = sum(packet.size for packet in effect.packets)
            self._add(size, took, 0 if size else took)

        handlers.on(TakePages, taken)
        handlers.on(SendPages, sent)

    def since(self) -> Crossed:
        """What has been done since this was called last."""
        with self._lock:
            sent, spent, zeros = self._bytes, self._nanoseconds, self._for_zeros
            self._bytes = self._nanoseconds = self._for_zeros = 0
        return Crossed(sent, 1.0 - zeros / spent if spent else 1.0)

    def _add(self, size: int, took: int, for_zeros: int) -> None:
        with self._lock:
            self._bytes += size
            self._nanoseconds += took
            self._for_zeros += for_zeros
