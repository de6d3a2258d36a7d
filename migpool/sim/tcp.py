"""What TCP makes of a link, in the mean: windows that grow with each round trip, losses, packets that pass each other.

A channel may have a window under way, and has room for more a round trip after it began to fill it. Its first window is
ten segments (RFC 6928), and each round trip doubles it, until losses or the kernel's buffer stop it. With losses it is
the mean window of CUBIC, or of Reno where that is the larger one (RFC 9438, sections 5.1 and 4.3). What is lost comes a
round trip later. All of that is expectation: there is no chance in it.
"""

from __future__ import annotations

import math
from typing import Final

from migpool.sim.world import World
from migpool.units import MIB

HEADERS: Final = 52
"""Bytes of a packet that are no payload: IPv4, TCP, timestamps."""
FRAME: Final = 14
"""Bytes that a packet takes on the link besides: Ethernet's header."""
FIRST_WINDOW: Final = 10
"""Segments."""
BUFFER: Final = 4 * MIB
"""The largest window: the most that Linux buffers for sending, unless it was told otherwise."""
_CUBIC: Final = (0.4 * (3 + 0.7) / (4 * (1 - 0.7))) ** 0.25
_RENO: Final = math.sqrt(1.5)


def goodput(world: World) -> float:
    """What a link carries of a migration's bytes, in bytes a second."""
    return world.link_rate * (world.mtu - HEADERS) / (world.mtu + FRAME) if world.mtu else world.link_rate


def lateness(world: World, size: int) -> float:
    """How much later than by the link's rate all of ``size`` bytes are there, in seconds, in the mean."""
    late = world.latency
    if world.mtu and (world.loss or world.jitter):
        packets = math.ceil(size / (world.mtu - HEADERS))
        late += 2 * world.latency * (1 - (1 - world.loss) ** packets)
        late += world.jitter * (packets - 1) / (packets + 1)  # of as many evenly drawn delays the longest one
    return late


class Channel:
    """One connection, as its sender sees it.

    Arguments:
        rate: how fast a thread puts bytes into it, in bytes a second.
    """

    __slots__ = ("_began", "_most", "_round_trip", "_sent", "_window", "rate")

    def __init__(self, rate: float, world: World) -> None:
        self.rate = rate
        self._round_trip = 2 * world.latency
        segment = max(1, world.mtu - HEADERS)
        self._window = FIRST_WINDOW * segment
        self._most: float = BUFFER
        if world.loss and self._round_trip:
            cubic = _CUBIC * (self._round_trip / world.loss) ** 0.75
            self._most = min(BUFFER, segment * max(2.0, cubic, _RENO / math.sqrt(world.loss)))
        self._sent = 0
        self._began = -math.inf

    def room(self, now: float) -> tuple[int, float]:
        """How many bytes may go, and, if none, when some may."""
        if not self._round_trip:
            return 1 << 62, now
        if now >= self._began + self._round_trip:
            if self._sent >= self._window:
                self._window = round(max(self._window, min(2 * self._window, self._most)))
            self._sent, self._began = 0, now
        return max(0, self._window - self._sent), self._began + self._round_trip

    def send(self, size: int) -> None:
        """So many bytes go now."""
        self._sent += size
