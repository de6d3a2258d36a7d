"""What a recording advises: its channels' bytes and times say it, which tell nothing of the devices' own work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from migpool.errors import UsageError
from migpool.lab.qemu.advise import PAGE_MS, Advice, Advised, ranked
from migpool.streams.record.explain import explain
from migpool.streams.record.explanation import Explanation

UNEVEN = 1.25
"""From which on the busiest channel carries notably more than the mean of all."""


def advise_recording(directory: Path) -> Advised:
    """What to change, as far as a recording tells.

    Raises:
        UsageError: it is no recording, or has no switchover.
    """
    found = explain(directory)
    begin, end = found.switchover.begin, found.switchover.end
    if begin is None or end is None:
        raise UsageError(f"{directory} has no whole switchover: nothing is known of a downtime")
    downtime = (end - begin) / 1e6
    return Advised(
        schema=1,
        downtime_ms=downtime,
        why="What limits it a recording does not say: give the trace logs of both QEMUs to know.",
        advice=ranked(list(_advice(found, begin, end)), downtime),
        remarks=[
            "from the first byte that says that the machine has stopped to the destination's last word: the machine's "
            "stop, and its start where the destination says nothing, are not in it"
        ],
    )


def _advice(found: Explanation, begin: int, end: int) -> Iterator[Advice]:
    ram = ((found.switchover.ram_end or begin) - begin) / 1e6
    sent = sum(one.switchover_bytes for one in found.channels)
    multifd = [one for one in found.channels if one.channel is not None]
    if not multifd:
        do = "Switch multifd on: all of RAM's last round, and all devices, went over the main channel."
        yield Advice(about="channels", do=do, worth_ms=min(ram, _takes(sent)), sure="untried")
    elif found.switchover_evenness >= UNEVEN:
        busiest = max(multifd, key=lambda one: one.switchover_bytes)
        excess = busiest.switchover_bytes * (1 - 1 / found.switchover_evenness)
        do = (
            f"See why {busiest.name} carried {found.switchover_evenness:.1f} times the mean of the {len(multifd)} "
            "multifd channels after the stop: their number, or which device's state goes over which."
        )
        worth = min((end - begin) / 1e6, _takes(excess))
        yield Advice(about="channels", do=do, worth_ms=worth, sure="untried")
    do = "Lower downtime-limit, so that less of RAM is left for the last round."
    yield Advice(about="downtime limit", do=do, worth_ms=min(ram, _takes(sent)), sure="untried")


def _takes(sent: float) -> float:
    """Milliseconds that so many bytes take at the most."""
    return sent / 4096 * PAGE_MS
