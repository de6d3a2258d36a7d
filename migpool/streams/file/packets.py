"""Pages of a stream file as multifd packets.

A file may hold a page several times, and the last one counts. Channels are loaded side by side, but each of them in its
order. So each page has its channel, by its address: 512 KiB of a block go to one channel, the next 512 KiB to the next.
No flush is needed between two copies of a page, and no list of the pages that were sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from migpool.wire.multifd import BYTES_PER_RAM_PACKET
from migpool.wire.ram import RamPages
from migpool.wire.ramheader import RamPacketHeader, ram_header, sync_header
from migpool.wire.unread import Buffer

_AREA: Final = BYTES_PER_RAM_PACKET


@dataclass(slots=True)
class _Waiting:
    """The next packet of a channel."""

    block: str = ""
    normal: dict[int, Buffer] = field(default_factory=dict)
    zero: dict[int, None] = field(default_factory=dict)

    def has_room(self, block: str, address: int, room: int) -> bool:
        known = address in self.normal or address in self.zero
        return block == self.block and not known and len(self.normal) + len(self.zero) < room


class Packets:
    """Gathers pages into packets, one packet a channel; at most 512 KiB wait for each.

    Arguments:
        channels: how many there are, at least 1.
        page_size: bytes of a page.
        send: sends buffers on a channel.
    """

    def __init__(self, channels: int, page_size: int, send: Callable[[int, Sequence[Buffer]], None]) -> None:
        self._page_size = page_size
        self._send = send
        self._room = BYTES_PER_RAM_PACKET // page_size
        self._waiting = [_Waiting() for _ in range(channels)]
        self._number = 0

    def add(self, pages: RamPages) -> None:
        """Take pages, and send the packets that have become full."""
        count = len(self._waiting)
        for address, page in pages:
            channel = address // _AREA % count
            waiting = self._waiting[channel]
            if not waiting.has_room(pages.block, address, self._room):
                waiting = self._send_waiting(channel)
                waiting.block = pages.block
            if page is None:
                waiting.zero[address] = None
            else:
                waiting.normal[address] = page

    def sync(self) -> None:
        """Send all that waits, and a SYNC on each channel."""
        for channel in range(len(self._waiting)):
            self._send_waiting(channel)
            self._send(channel, [sync_header(self._next_number(), self._page_size)])

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _send_waiting(self, channel: int) -> _Waiting:
        waiting = self._waiting[channel]
        if waiting.normal or waiting.zero:
            header = RamPacketHeader(
                0,
                self._next_number(),
                waiting.block,
                tuple(waiting.normal),
                tuple(waiting.zero),
                len(waiting.normal) * self._page_size,
                self._room,
            )
            self._send(channel, [ram_header(header, self._page_size), *waiting.normal.values()])
        self._waiting[channel] = fresh = _Waiting()
        return fresh
