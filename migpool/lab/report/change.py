"""Two results side by side: what became of each model's downtime, and what else is not as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from migpool.lab.report.summary import ModelSummary, summarize
from migpool.lab.run.result import LabResult
from migpool.units import format_duration


@dataclass(frozen=True, slots=True)
class Change:
    """A model in both results; each has completed runs."""

    before: ModelSummary
    after: ModelSummary

    @property
    def apart(self) -> bool:
        """Whether no run of one was as long as any of the other: else it may be chance."""
        return self.after.most < self.before.least or self.before.most < self.after.least

    def __str__(self) -> str:
        """Such as ``pool: 285 ms instead of 491 ms, 42 % shorter.``"""
        was, is_now = self.before.downtime or 0.0, self.after.downtime or 0.0
        said = f"{self.after.model}: {format_duration(is_now / 1e3)} instead of {format_duration(was / 1e3)}"
        if not self.apart:
            return f"{said}, within the spread of the runs."
        if min(self.before.runs, self.after.runs) == 1:
            return f"{said}. With one run the spread is not known."
        share = f"{100 * abs(is_now / was - 1):.0f} % {'shorter' if is_now < was else 'longer'}" if was else "longer"
        return f"{said}, {share}."

    def cells(self) -> tuple[str, ...]:
        """The model, both downtimes with their ranges, both numbers of threads, both amounts of memory."""
        both = (self.before, self.after)
        threads, memory = ([sum(one.threads) for one in both], [one.high_water for one in both])
        return (
            self.after.model,
            *(_downtime(one) for one in both),
            f"{threads[0]} → {threads[1]}",
            f"{memory[0] / 2**20:.1f} → {memory[1] / 2**20:.1f} MiB",
        )


HEADS = ("Model", "Downtime before", "Downtime after", "Threads", "Memory of budget")
"""Of a table of :meth:`Change.cells`."""
NOTHING = "No model has completed runs in both results."
"""What is said where there is no change to tell of."""


def changes(before: LabResult, after: LabResult) -> list[Change]:
    """The models that both have, in the order of the later one."""
    was = {one.model: one for one in summarize(before.runs) if one.downtime is not None}
    now = [one for one in summarize(after.runs) if one.downtime is not None]
    return [Change(was[one.model], one) for one in now if one.model in was]


def differences(before: LabResult, after: LabResult) -> Iterator[str]:
    """What was not the same in both, besides the runs: keys of the scenario, and facts of the machine."""
    was, now = ((dict(_flat(one.settings)), one.machine) for one in (before, after))
    for key in sorted(was[0].keys() | now[0].keys()):
        if was[0].get(key) != now[0].get(key):
            yield f"{key} was {_told(was[0].get(key))}, and is {_told(now[0].get(key))}"
    if was[1] != now[1]:
        yield f"the machine was {was[1] or 'unknown'}, and is {now[1] or 'unknown'}"


def _flat(value: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{number}]")
    else:
        yield path, value


def _told(value: JsonValue) -> str:
    return "not said" if value is None else str(value)


def _downtime(one: ModelSummary) -> str:
    spread = f" ({format_duration(one.least / 1e3)} to {format_duration(one.most / 1e3)})" if one.runs > 1 else ""
    return f"{format_duration((one.downtime or 0.0) / 1e3)}{spread}"
