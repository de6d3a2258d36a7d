"""The report's first sentences: which model, how much, and why."""

from __future__ import annotations

from migpool.lab.report.page.contents import looked_into
from migpool.lab.report.summary import answer, summarize
from migpool.lab.run.result import LabResult, RunResult
from migpool.units import format_duration


def headline(result: LabResult) -> str:
    """One sentence; empty if no run completed."""
    summaries = [one for one in summarize(result.runs) if one.downtime is not None]
    if not summaries:
        return ""
    first = summaries[0]
    assert first.downtime is not None
    others = summaries[1:]
    level = any(one.least <= first.most for one in others)
    place = "is the only model that was tried" if not others else "is among the fastest" if level else "is the fastest"
    said = f"{first.model} {place}, with {format_duration(first.downtime / 1e3)} of downtime"
    run = shown_run(result, first.model)
    why = run.analysis.why if run is not None and run.analysis is not None else ""
    return f"{said}; it is not less because {why}." if why else f"{said}."


def reason_line(result: LabResult) -> str:
    """Why the downtime of the fastest model is not less; empty if that is not known."""
    summaries = [one for one in summarize(result.runs) if one.downtime is not None]
    run = shown_run(result, summaries[0].model) if summaries else None
    if run is None or run.analysis is None or not run.analysis.why:
        return ""
    return f"Of {run.model} it is not less because {run.analysis.why}."


def rest(result: LabResult) -> str:
    """How the models compare, as far as the spread allows to say it."""
    return answer(summarize(result.runs))


def shown_run(result: LabResult, model: str) -> RunResult | None:
    """The run of a model that was looked into."""
    return next((result.runs[at] for at in looked_into(result.runs) if result.runs[at].model == model), None)
