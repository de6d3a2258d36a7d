"""What the numbers of a result rest on, line by line: on the terminal, and on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median, median_low
from typing import Final, NamedTuple

from migpool.lab.run.result import LabResult, RunResult
from migpool.units import format_duration, format_share


class Fact(NamedTuple):
    """One line: what it is about, and what there is to say."""

    term: str
    text: str


def foundations(result: LabResult) -> Iterator[Fact]:
    """The devices, the host, the clock and the bound; what the devices and the models remark; each warning once."""
    runs = result.runs
    facts = [
        ("Devices", _devices(runs)),
        ("Remarks", _remarks(runs)),
        ("Host", str(result.machine)),
        ("Clock", ", ".join(_CLOCKS.get(clock, clock) for clock in sorted({run.clock for run in runs if run.clock}))),
        ("Pre-copy", _precopied(runs)),
    ]
    if (bound := result.lower_bound) is not None:
        limit = f"{format_duration(bound.milliseconds / 1e3)}, set by {bound.limited_by}"
        facts.append(("Lower bound", f"{limit}; efficiency is this over the downtime"))
    facts += [
        ("Remark", remark) for remark in dict.fromkeys(f"{run.model}, {one}" for run in runs for one in run.remarks)
    ]
    facts += [("Warning", warning) for warning in dict.fromkeys(one for run in runs for one in run.warnings)]
    yield from (Fact(term, text) for term, text in facts if text)


_CLOCKS: Final = {
    "monotonic": "one for both sides (CLOCK_MONOTONIC)",
    "return-path": "the source's; the answer's arrival less half a round trip",
}


def _remarks(runs: Sequence[RunResult]) -> str:
    devices = next((run.devices for run in reversed(runs) if run.devices), [])
    return "; ".join(f"{device.name} {device.remark}" for device in devices if device.remark)


def _precopied(runs: Sequence[RunResult]) -> str:
    """What moved before the stop, and what that saved, in the run in the middle; empty if nothing did."""
    some = [run for run in runs if run.outcome == "completed" and run.bytes_before_stop]
    if not some:
        return ""
    before, whole = (median_low(getattr(run, name) for run in some) for name in ("bytes_before_stop", "bytes"))
    said = f"{format_share(before, whole)} moved before the stop"
    if saved := [run.precopy_saved_ms for run in some if run.precopy_saved_ms is not None]:
        said += f", which saved about {format_duration(median(saved) / 1e3)} of downtime"
        least, most = (format_duration(of(saved) / 1e3) for of in (min, max))
        said += f" ({least.removesuffix(' ms')}-{most.removesuffix(' ms')})" if len(saved) > 1 else ""
    return said


def _devices(runs: Sequence[RunResult]) -> str:
    devices = next((run.devices for run in runs if run.devices), [])
    counts = Counter(device.note or ("iterable" if device.iterable else "device") for device in devices)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
