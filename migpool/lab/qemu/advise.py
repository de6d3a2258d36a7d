"""What to change so that a downtime is shorter: what each change is worth at the most, and how sure that is.

Of trace logs the what-ifs of ``explain`` say it, and for the order of the devices Johnson's rule: all are saved by one
thread, and loaded by one, each after it was saved, and of two machines in a row the rule finds the shortest plan (S. M.
Johnson, "Optimal two- and three-stage production schedules with setup times included", 1954).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, Field, JsonValue

from migpool.lab.analysis.why import WORTH_NAMING
from migpool.lab.qemu.explain import FLAT_VIEWS, Explained
from migpool.lab.qemu.source import RAM
from migpool.lab.qemu.whatif import kind_of
from migpool.lab.report.table import device_times, markdown_table
from migpool.lab.run.result import AnalysisResult, RunResult
from migpool.units import count_of, format_duration, format_size

VFIO: Final = "vfio"
PAGE_MS: Final = 0.1
"""What a page takes at the most, on a link of 40 MB/s: what RAM's last round takes besides no limit shortens."""
PAGE: Final = 4096
CONVERGES: Final = 0.5
"""The share of the pages of the round before from which on a round has notably less to send no more."""
OWN_THREAD: Final = "migration"

SAYS: Final = {
    "measured": "QEMU timed each step that would be gone",
    "upper bound": "what the devices need of each other is not known",
    "untried": "no log shows what such a change does: try it, and measure",
}


class Advice(BaseModel):
    """One change.

    Attributes:
        about: what is to be changed.
        do: how, as a sentence.
        worth_ms: by how much the downtime would be shorter, at the most.
        sure: as in ``SAYS``.
    """

    about: Literal[
        "channels",
        "multifd transfer",
        "downtime limit",
        "bandwidth",
        "dirty pages",
        "compression",
        "load order",
        "device",
        "machine",
    ]
    do: str
    worth_ms: float
    sure: Literal["measured", "upper bound", "untried"]


class Advised(BaseModel):
    """What is said of one downtime.

    Attributes:
        why: what limits it; and why nothing is advised for the last round of RAM, if that is the largest part.
        advice: what is worth the most first; empty where nothing is worth a twentieth of the downtime.
        shares: where it went, in milliseconds; empty if that is not known.
        remarks: what it rests on.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    downtime_ms: float
    why: str
    advice: list[Advice]
    shares: dict[str, float] = {}
    remarks: list[str] = []

    def lines(self) -> Iterator[str]:
        """As text."""
        yield f"{format_duration(self.downtime_ms / 1e3)} of downtime. {self.why}"
        if not self.advice:
            yield "No change that this shows would make it a twentieth shorter."
        for number, one in enumerate(self.advice, 1):
            yield f"{number}. {one.do}"
            yield f"   {one.about}: {format_duration(one.worth_ms / 1e3)} at the most ({one.sure}: {SAYS[one.sure]})"

    def markdown(self) -> str:
        """For the report of a bug."""
        lines = [f"**Downtime** {format_duration(self.downtime_ms / 1e3)}. {self.why}", ""]
        if self.advice:
            rows = [(one.about, one.do, format_duration(one.worth_ms / 1e3), one.sure) for one in self.advice]
            lines += [*markdown_table("| about | what to change | worth at the most | how sure |", rows), ""]
        else:
            lines += ["No change that the logs show would make it a twentieth shorter.", ""]
        if self.shares:
            rows_ = [(kind, format_duration(spent / 1e3)) for kind, spent in self.shares.items() if spent > 0]
            lines += [*markdown_table("| on the critical path | time |", rows_), ""]
        return "\n".join([*lines, *(f"* {remark}" for remark in self.remarks), ""])


def advise(found: Explained) -> Advised:
    """What the trace logs advise."""
    (run,) = found.result.runs
    assert run.analysis is not None
    downtime = run.downtime_ms or 0.0
    of_ram = ranked([*_of_ram(found, run.analysis), *_of_channels(run.analysis)], downtime)
    silent = "" if of_ram else _no_advice(found, run.analysis)
    advice = [*of_ram, *_of_vfio(run, run.analysis), *_of_devices(run, run.analysis)]
    return Advised(
        schema=1,
        downtime_ms=downtime,
        why=" ".join(filter(None, (f"What limits it: {run.analysis.why}", silent))),
        advice=ranked(advice, downtime),
        shares=run.attribution,
        remarks=[*([f"Clocks: {run.clock}"] if run.clock else []), *run.remarks],
    )


def ranked(advice: Sequence[Advice], downtime: float) -> list[Advice]:
    """What is worth naming, the most first."""
    return sorted((one for one in advice if one.worth_ms >= WORTH_NAMING * downtime), key=lambda one: -one.worth_ms)


def _worth(analysis: AnalysisResult, resource: str, side: str | None = None) -> float:
    """Milliseconds that a what-if found, the most of all sides."""
    found = [
        one.shorter_ms for one in analysis.resources if one.resource == resource and (side is None or one.side == side)
    ]
    return max(found, default=0.0)


def _of_ram(found: Explained, analysis: AnalysisResult) -> Iterator[Advice]:
    """Its last round: how much is left for it, how fast it goes, and how fast the guest writes."""
    behind = _worth(analysis, "pre-copied")
    if behind:
        do = (
            "Have the destination keep up: it was still loading what was sent before the stop; give it CPUs, lower "
            "max-bandwidth, or ask for return-path and switchover-ack where devices have it."
        )
        yield Advice(about="downtime limit", do=do, worth_ms=behind, sure="measured")
    dirty = found.rounds[-1] if found.rounds else 0
    took = _worth(analysis, f"device {RAM}")
    worth = min(took, dirty * PAGE_MS)
    if not worth:
        return
    do = f"Lower downtime-limit, so that the last round of RAM has less than these {dirty} dirty pages to send."
    yield Advice(about="downtime limit", do=do, worth_ms=worth, sure="untried")
    if len(found.rounds) > 1 and dirty > CONVERGES * found.rounds[-2]:
        do = (
            f"Slow the guest down (auto-converge, or dirty-limit with a dirty ring): it had written {dirty} pages anew "
            f"in the last round, after {found.rounds[-2]} in the one before."
        )
        yield Advice(about="dirty pages", do=do, worth_ms=worth, sure="untried")
    rate = format_size(round(dirty * PAGE / took * 1e3))
    limit = _parameter(found, "max-bandwidth")
    held = (
        f"max-bandwidth ({format_size(limit)}/s)" if isinstance(limit, int) and limit else "max-bandwidth, if it is set"
    )
    do = f"Raise {held}, or use a faster link: the last round went at {rate}/s; at twice that it takes half as long."
    yield Advice(about="bandwidth", do=do, worth_ms=worth / 2, sure="untried")
    channels = {said["channel"] for said in _multifd(found)}
    if not channels and _multifd_off(found):
        do = "Switch multifd on: one thread sends all of RAM, and half as long is what a second one can make of it."
        yield Advice(about="channels", do=do, worth_ms=worth / 2, sure="untried")
    elif channels and _parameter(found, "multifd-compression") in (None, "none"):
        do = "Try multifd-compression (zstd, or one of the processor's own): where the link is slow and CPUs are idle."
        yield Advice(about="compression", do=do, worth_ms=worth / 2, sure="untried")


def _of_channels(analysis: AnalysisResult) -> Iterator[Advice]:
    channels = {one.resource: one.shorter_ms for one in analysis.resources if one.resource.startswith("channel ")}
    if channels:
        slowest = max(channels, key=lambda name: channels[name])
        do = f"See why RAM's last round waits for multifd {slowest}, one of {len(channels)}: its CPU, or their number."
        yield Advice(about="channels", do=do, worth_ms=channels[slowest], sure="untried")


def _no_advice(found: Explained, analysis: AnalysisResult) -> str:
    """What is said where the last round of RAM is worth most of all devices, and nothing is known that shortens it."""
    largest = next((one for one in analysis.resources if one.resource.startswith("device ")), None)
    (run,) = found.result.runs
    if largest is None or largest.devices != [RAM] or largest.shorter_ms < WORTH_NAMING * (run.downtime_ms or 0.0):
        return ""
    begin = f"The last round of RAM takes {format_duration(largest.shorter_ms / 1e3)}, and nothing is advised for it: "
    if not found.rounds:
        return begin + "the logs do not say how many pages were left; migration_bitmap_sync* would."
    return begin + f"with {count_of(found.rounds[-1], 'page')} left to send it is the round's own cost."


def _multifd(found: Explained) -> Iterator[Mapping[str, str]]:
    events = [] if found.source is None else found.source.events
    return (event.said for event in events if event.event == "multifd_send_fill")


def _multifd_off(found: Explained) -> bool:
    """Whether it is known that there were no channels: that nothing is said of them may be that it was not traced."""
    source = _told(found, "capabilities")
    return source.get("multifd") is False


def _parameter(found: Explained, name: str) -> JsonValue:
    """A parameter of the source's migration; ``None`` if nobody asked for it."""
    return _told(found, "parameters").get(name)


def _told(found: Explained, what: str) -> dict[str, JsonValue]:
    """What the source's monitor said, if it was observed."""
    monitors = found.result.settings.get("monitors")
    source = monitors.get("source") if isinstance(monitors, dict) else None
    told = source.get(what) if isinstance(source, dict) else None
    return told if isinstance(told, dict) else {}


def _of_vfio(run: RunResult, analysis: AnalysisResult) -> Iterator[Advice]:
    devices = [at for at, one in enumerate(run.devices) if kind_of(one.name) == VFIO]
    if not devices:
        return
    trace = analysis.trace
    own_threads = {
        side.threads[thread] != OWN_THREAD
        for side in (trace.source, trace.destination)
        for _, slot, _, _, _, thread in side.spans
        if slot in devices
    }
    if True not in own_threads:
        times = device_times(analysis, run.devices)
        kinds = _worth(analysis, f"{VFIO} in parallel")
        # One device alone gains by it, too: its state and the rest go side by side.
        alone = max((_worth(analysis, f"device {run.devices[at].name}") for at in devices), default=0.0)
        taken = sum(times[run.devices[at].name].path for at in devices)
        yield Advice(
            about="multifd transfer",
            do="Set x-migration-multifd-transfer=on for VFIO devices, with multifd: each has a thread of its own then.",
            worth_ms=min(taken, kinds + alone),
            sure="upper bound",
        )
    elif lock := _worth(analysis, "big lock"):
        do = "Shorten the config loads of VFIO devices: for these their threads wait for the big lock, in turn."
        yield Advice(about="device", do=do, worth_ms=lock, sure="measured")


def _of_devices(run: RunResult, analysis: AnalysisResult) -> Iterator[Advice]:
    times = device_times(analysis, run.devices)
    for one in analysis.resources:
        (name, *others) = one.devices or [""]
        if one.resource == f"device {name}" and name != RAM and not others:
            took = times[name]
            side = "load" if took.loaded >= took.saved else "save"
            do = f"Fix {name} first: its {side} takes {format_duration(max(took.loaded, took.saved) / 1e3)}."
            yield Advice(about="device", do=do, worth_ms=one.shorter_ms, sure="measured")
            break
    # What the flat views took, if the log has them; else how much longer than the first each load was.
    views = [one for one in analysis.resources if one.resource == FLAT_VIEWS]
    for one in views or analysis.resources:
        if one.resource == FLAT_VIEWS or one.resource.endswith(" like the first"):
            loads = f"all {len(one.devices)} {'devices' if views else kind_of(one.devices[0])}"
            why = "their loads build them again and again" if views else "each takes longer to load than the one before"
            do = f"Have QEMU build the flat views of memory once for {loads}, or use fewer: {why}."
            yield Advice(about="device", do=do, worth_ms=one.shorter_ms, sure="upper bound")
    for resource, side, do in (
        ("the machine's stop", "source", "Look at what stops with the machine: vCPUs, disks with writes under way."),
        (
            "the machine's start",
            "destination",
            "Look at what starts with the machine: disks, clocks, networks.",
        ),
    ):
        if worth := _worth(analysis, resource, side):
            yield Advice(about="machine", do=do, worth_ms=worth, sure="measured")
    once = [
        (one.name, times[one.name].saved, times[one.name].loaded)
        for one in run.devices
        if not one.iterable and times[one.name].saved and times[one.name].loaded
    ]
    now, best = _makespan(once), sorted(once, key=_johnson)
    first = next((name for (name, *_), (before, *_) in zip(best, once, strict=True) if name != before), "")
    if first:
        do = f"Save and load devices in another order, first what is saved faster than loaded: {first}."
        yield Advice(about="load order", do=do, worth_ms=max(0.0, now - _makespan(best)), sure="upper bound")


def _johnson(device: tuple[str, float, float]) -> tuple[bool, float]:
    """The rule's order: what is saved faster than loaded by the time to save, then the rest, the longest load first."""
    _, save, load = device
    return (True, -load) if save >= load else (False, save)


def _makespan(devices: Sequence[tuple[str, float, float]]) -> float:
    """Milliseconds until all are loaded, one at a time at each side."""
    saved = loaded = 0.0
    for _, save, load in devices:
        saved += save
        loaded = max(loaded, saved) + load
    return loaded
