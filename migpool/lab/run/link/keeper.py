"""The process that has the link: ``python -m migpool.lab.run.link.keeper FD``.

Started by :mod:`migpool.lab.run.link.process`; FD is its end of the connection, over which they say, a JSON object a
line::

    parent                                   keeper
      {"link": {...}, "seed": 1}      ->
                                      <-       {"host": "198.18.0.2"}   with the descriptors of both namespaces
                                      <-       {"error": "..."}         instead, and the end
      {"end": true}                   ->
                                      <-       {"use": {...}}           and the end

It ends when the connection does. What it made has no name, so the kernel takes it down with the last of this process,
the parent and the two sides.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from migpool.errors import MigpoolError
from migpool.lab.run.link.use import LinkUse
from migpool.scenario.schema import LinkTable

TICK: Final = 0.01
"""Seconds between two looks at the counters."""
MOST: Final = 4000
"""Looks that are kept; with more every second one goes, and they become half as often."""


class Counting:
    """The link's counters over time. ``tick``: seconds between two looks at first."""

    def __init__(self, tick: float = TICK) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self._tick = tick

    def look(self, counters: tuple[int, int]) -> None:
        """Note the counters, if it is time."""
        now = time.monotonic_ns()
        if self.seen and now - self.seen[-1][0] < self._tick * 1e9:
            return
        self.seen.append((now, *counters))
        if len(self.seen) > MOST:
            del self.seen[::2]
            self._tick *= 2

    def way(self, place: int) -> list[tuple[int, int]]:
        """When one of them was what: without the looks that found nothing new on either side of them."""
        rows = [(row[0], row[place]) for row in self.seen]
        last = len(rows) - 1
        return [
            row
            for at, row in enumerate(rows)
            if at in (0, last) or row[1] != rows[at - 1][1] or row[1] != rows[at + 1][1]
        ]


def keep(control: socket.socket) -> None:
    """Make the link, keep it until the parent has enough of it, and say how it was used."""
    told = _heard(control)
    if told is None:
        return
    from migpool.lab.run.link.cable import ADDRESSES, Cable
    from migpool.lab.run.link.relay import waited

    link = LinkTable.model_validate(told["link"])
    cable = Cable(link, told["seed"])
    _say(control, {"host": ADDRESSES[1]}, cable.networks)
    counting = Counting()
    relay = cable.relay
    while True:
        ready = waited(control, relay, TICK)
        if control in ready:
            break
        if relay is not None:
            relay.step(ready)
        counting.look(cable.counters())
    if _heard(control) is None:
        return
    counting.look(cable.counters())
    use = LinkUse(
        rate=link.rate,
        delay_ms=link.delay * 1e3,
        jitter_ms=link.jitter * 1e3,
        loss=link.loss,
        queue_bytes=cable.queue,
        mtu=link.mtu,
        by=cable.by,
        dropped=cable.dropped(),
        clock_offset_ms=link.clock_offset * 1e3,
        forth=counting.way(1),
        back=counting.way(2),
        relay=None if relay is None else relay.cost(),
    )
    _say(control, {"use": use.model_dump()})


def _heard(control: socket.socket) -> dict[str, Any] | None:
    """The parent's next word; ``None`` if it is gone."""
    kept = b""
    while not kept.endswith(b"\n"):
        try:
            data = control.recv(1 << 16)
        except OSError:
            return None
        if not data:
            return None
        kept += data
    told: dict[str, Any] = json.loads(kept)
    return told


def _say(control: socket.socket, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
    data = json.dumps(message).encode() + b"\n"
    # The descriptors go with the first byte alone, however many reads the rest takes.
    sent = socket.send_fds(control, [data], descriptors) if descriptors else 0
    control.sendall(data[sent:])


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        keep(control)
    except MigpoolError as error:
        _say(control, {"error": str(error)})
    except Exception as error:  # noqa: BLE001 -- told to the parent, who tells it in a line
        _say(control, {"error": f"[link]: the kernel does not make it: {error}"})


if __name__ == "__main__":
    main()
