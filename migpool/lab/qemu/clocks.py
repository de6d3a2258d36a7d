"""Two hosts' clocks, aligned by what must have come before what.

A multifd packet is received after it was sent; a device is loaded to its end after its saving began; a PONG is heard
after its PING, the last word of the return path after it was spoken. The first two bound the destination's clock from
above (how far it can be ahead of the source's), the others from below.

If the two logs agree as they are, they are taken as they are: one host, or two that a time service keeps together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from migpool.errors import UsageError
from migpool.lab.qemu.log import Event, SideLog, device_name
from migpool.lab.run.clocks import standing
from migpool.units import format_duration

TOLERATED = 0.1
"""By how much of the source's time in the downtime the bounds may contradict each other: clocks drift."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """How the destination's clock stands to the source's. Times are nanoseconds.

    Attributes:
        ahead: what is to be taken off the destination's times.
        least, most: how far ahead it can be at the least and at the most; ``None`` if nothing bounds it.
    """

    ahead: int = 0
    least: int | None = None
    most: int | None = None

    @property
    def uncertainty(self) -> int | None:
        """How far the alignment can be off to either side; ``None`` if one side is unbounded."""
        if self.least is None or self.most is None:
            return None
        return max(0, self.most - self.ahead, self.ahead - self.least)

    def __str__(self) -> str:
        off = self.uncertainty
        sure = (
            "how far that can be off these logs do not say"
            if off is None
            else f"at most {format_duration(off / 1e9)} off"
        )
        if not self.ahead:
            return f"both logs' times as they are, which agree with what must have come first; {sure}"
        return f"{standing(self.ahead)}, by what must have come first; {sure}"


def align(source: SideLog, destination: SideLog) -> Clocks:
    """How the clocks of two logs stand to each other.

    Raises:
        UsageError: nothing makes them fit: they are of different migrations.
    """
    by_packet = min(_packets(source, destination), default=None)
    most = min([*_later(source, destination), *([] if by_packet is None else [by_packet])], default=None)
    least = max(_at_least(source, destination), default=None)
    if most is None and least is None:
        return Clocks()
    if least is not None and most is not None and least > most:
        times = source.checkpoints.values()
        if least - most > TOLERATED * (max(times) - min(times)):
            raise UsageError(
                f"{source.path} and {destination.path} are not of one migration: what must have come first comes "
                f"{format_duration((least - most) / 1e9)} later at the least, however the clocks are shifted"
            )
        least = most = (least + most) // 2
    if (least is None or least <= 0) and (most is None or most >= 0):
        return Clocks(0, least, most)
    if least is None or most is None:
        return Clocks(most if most is not None else least or 0, least, most)
    # A packet is under way for as long as a word on the return path; what was loaded may have lain there for long.
    return Clocks((least + most) // 2 if by_packet == most else least, least, most)


def _packets(source: SideLog, destination: SideLog) -> Iterator[int]:
    """How far ahead the destination's clock can be: whatever packet it received had been sent."""
    for packet, sent in source.packets.items():
        received = destination.packets.get(packet)
        if received is not None:
            yield received - sent


def _later(source: SideLog, destination: SideLog) -> Iterator[int]:
    """The same, by what it loaded."""
    saved = {name: event.time - _took(event) for name, event in _devices(source, "vmstate_downtime_save").items()}
    for name, event in _devices(destination, "vmstate_downtime_load").items():
        if name in saved:
            yield event.time - saved[name]
    stopped = source.checkpoints.get("src-vm-stopped")
    told = next((event.time for event in destination.events if event.said.get("command") == "SWITCHOVER_START"), None)
    if stopped is not None and told is not None:
        yield told - stopped


def _at_least(source: SideLog, destination: SideLog) -> Iterator[int]:
    """How far ahead it is at the least: whatever the source heard had been said."""
    for word, said in destination.words.items():
        if word in source.words:
            yield said - source.words[word]


def _devices(log: SideLog, event: str) -> dict[tuple[str, str], Event]:
    """The last time that each device was saved, or loaded, in the switchover: what is iterable of it, or the rest."""
    return {(one.said["type"], device_name(one.said)): one for one in log.events if one.event == event}


def _took(event: Event) -> int:
    return int(event.said["took"]) * 1000
