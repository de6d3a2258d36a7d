"""What experiments found as a directory: a page of Markdown, a picture and the JSON of each, and an index of all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from migpool.errors import UsageError
from migpool.experiments.finding import ComparisonFinding, CountFinding, Finding, VariantFinding
from migpool.experiments.form import in_order
from migpool.experiments.growing_pools import told
from migpool.experiments.plot import plot
from migpool.experiments.verdict import expected
from migpool.lab.report.table import markdown_table
from migpool.lab.run.form import read_form
from migpool.units import format_duration, format_size

SHOWN_KINDS = 3

ENDED = {
    "narrow": "every interval was narrow enough",
    "time": "the time was up",
    "cancelled": "it was cancelled",
    "failures": "too many runs failed",
    "counted": "everything was counted, or the time was up",
    "simulated": "everything was simulated",
}


def index(findings: Sequence[Finding]) -> str:
    """A table of all verdicts, with a link to each page."""
    first = findings[0]
    lines = ["# Experiments", "", _machine(first), ""]
    if any(one.quick or one.preliminary for one in findings):
        lines += ["Some of these are preliminary: their pages say why.", ""]
    rows = [
        (f"[{one.id}]({one.id}.md)", one.claim, one.by, f"**{one.verdict}**", "preliminary" if one.preliminary else "")
        for one in findings
    ]
    lines += markdown_table("| | claim | by | verdict | |", rows)
    worse = [(one.id, field) for one in findings for field in one.growing if field.worse]
    if worse:
        lines += ["", "Where a pool of a fixed size is worse, and how those do that grow:", ""]
        lines += [f"* {name}: {told(field)}" for name, field in worse]
    lines += [
        "",
        "A ratio is taken within a round of runs; its interval is that of the median over the rounds, by order "
        "statistics, 95 % unless a page says otherwise.",
    ]
    return "\n".join(lines) + "\n"


def page(finding: Finding, picture: str) -> str:
    """One experiment's page. ``picture``: the name of its SVG file."""
    growing = [f"* {told(field)}" for field in finding.growing]
    lines = [
        f"# {finding.id}: {finding.title}",
        "",
        f"> {finding.claim} ({finding.by})",
        "",
        f"**{finding.verdict.capitalize()}**{' (preliminary)' if finding.preliminary else ''}: {finding.reason}",
        "",
        f"![{finding.title}]({picture})",
        "",
        "## Method",
        "",
        finding.method,
        "",
        *_comparisons(finding.comparisons),
        *_counts(finding.counts),
        *(["## Pools that grow", "", *growing, ""] if growing else ()),
        *_variants([one for one in finding.variants if one.run]),
        *_loads([one for one in finding.variants if one.loads_ms]),
        *_simulated(finding),
        "## Circumstances",
        "",
        _machine(finding),
        "",
        _effort(finding),
        "",
        *(f"* failed: {line}" for line in finding.failures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _comparisons(comparisons: Sequence[ComparisonFinding]) -> list[str]:
    rows = [
        (
            one.name if one.measure == "downtime" else f"{one.name} ({one.measure})",
            one.of,
            one.to,
            *one.cells("{:.1%}"),
            len(one.ratios),
            expected(one.least, one.most),
            one.outcome if one.decides else f"{one.outcome}, decides nothing",
        )
        for one in comparisons
        if one.ratios or one.simulated is None
    ]
    heading = "| ratio | of | to | median | interval | covers | rounds | expected | |"
    return ["## Ratios", "", *markdown_table(heading, rows), ""] if rows else []


def _counts(counts: Sequence[CountFinding]) -> list[str]:
    rows = [(one.what, one.model or "all", one.total, one.wrong, one.outcome) for one in counts]
    examples = [f"* {one.model}{': ' if one.model else ''}{line}" for one in counts for line in one.examples]
    heading = "| what must not be | model | of | were | |"
    lines = ["## Counts", "", *markdown_table(heading, rows), ""] if rows else []
    return [*lines, *examples, ""] if examples else lines


def _variants(variants: Sequence[VariantFinding]) -> list[str]:
    rows = []
    for one in variants:
        times = [time for time in one.downtime_ms if time is not None]
        middle, least, most = (format_duration(of(times) / 1e3) if times else "-" for of in (median, min, max))
        told = f"{middle} ({least} to {most})" if times else "-"
        threads = f"{one.threads.source or 0}+{one.threads.destination or 0}"
        memory = "-" if one.memory_share is None else f"{one.memory_share:.0%} of the budget"
        where = [f"{kind} {format_duration(spent / 1e3)}" for kind, spent in list(one.where.items())[:SHOWN_KINDS]]
        rows.append((one.name, f"`{one.model}`", told, threads, memory, ", ".join(where)))
    heading = "| variant | model | downtime, median (least to most) | threads | memory | where it went |"
    return ["## Runs", "", *markdown_table(heading, rows), ""] if rows else []


def _loads(variants: Sequence[VariantFinding]) -> list[str]:
    """What real QEMUs say of each device's load."""
    rows = [(one.name, sum(one.loads_ms), " ".join(f"{time * 1e3:.0f}" for time in one.loads_ms)) for one in variants]
    if not rows:
        return []
    told = [(name, format_duration(whole / 1e3), times) for name, whole, times in rows]
    said = dict.fromkeys(f"{one.name}: {line}" for one in variants for line in one.remarks if "flat views" in line)
    versions = dict.fromkeys(
        line.partition(",")[0] for one in variants for line in one.remarks if line.startswith("observed with")
    )
    return [
        "## Loads",
        "",
        "What each device of the variant's kind took to load at the destination, in microseconds, in the order of "
        f"loading, the median of the rounds; {' and '.join(versions) or 'QEMU'}.",
        "",
        *markdown_table("| variant | all | each |", told),
        "",
        *(f"* {line}" for line in said),
        *([""] if said else []),
    ]


def _simulated(finding: Finding) -> list[str]:
    """Reality beside virtual time, and what only the latter shows."""
    ratios = [
        (
            one.name,
            "-" if one.median is None else f"{one.median:.2f} ({one.low:.2f} to {one.high:.2f})",
            f"{one.simulated:.2f}",
            "-" if one.median is None else f"{one.simulated / one.median - 1:+.0%}",
        )
        for one in finding.comparisons
        if one.simulated is not None
    ]
    if not ratios:
        return []
    times = []
    for one in finding.variants:
        if one.simulated_ms is not None:
            measured = [time for time in one.downtime_ms if time is not None]
            middle = median(measured) if measured else None
            times.append(
                (
                    one.name,
                    "-" if middle is None else format_duration(middle / 1e3),
                    format_duration(one.simulated_ms / 1e3),
                    "-" if not middle else f"{one.simulated_ms / middle - 1:+.0%}",
                    format_size(one.simulated_held or 0),
                    format_size(one.simulated_early or 0),
                )
            )
    return [
        "## Simulated",
        "",
        "The same jobs in virtual time, with the costs that the experiment's file gives, on hosts where nobody else "
        "runs. Where nothing stands for measured, it was not run here, and the simulation alone says something. What "
        "is held is counted in rooms of a chunk each.",
        "",
        *markdown_table("| ratio | measured | simulated | off |", ratios),
        "",
        *markdown_table("| variant | measured | simulated | off | held at the destination | came early |", times),
        "",
    ]


def _machine(finding: Finding) -> str:
    told = f"{finding.machine}; load average at the beginning of {finding.id}: {finding.load:.1f}."
    return f"{told} {finding.note}" if finding.note else told


def _effort(finding: Finding) -> str:
    what = "a quick look" if finding.quick else "the full effort"
    if not finding.rounds:
        return f"{finding.seconds:.0f} s, {what}; {ENDED[finding.ended]}."
    rounds = f"{finding.rounds} {'round' if finding.rounds == 1 else 'rounds'}"
    return (
        f"{rounds} in {finding.seconds:.0f} s, {what}; {ENDED[finding.ended]}. Narrow enough would be "
        f"{finding.precision:.1%} of the ratio to either side, at 95 %."
    )


def prepare(folder: Path) -> None:
    """Have the directory before the work begins, and not find out after it.

    Raises:
        UsageError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror or error}: name another directory") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written to: no permission")


def write_finding(folder: Path, finding: Finding, write: Callable[[Path, str], None]) -> None:
    """Write its files, and the index anew: of this one and of all that earlier calls left in the directory."""
    write(folder / f"{finding.id}.json", finding.to_json())
    write(folder / f"{finding.id}.svg", plot(finding))
    write(folder / f"{finding.id}.md", page(finding, f"{finding.id}.svg"))
    write(folder / "README.md", index(sorted(_there(folder), key=_number)))


def findings_in(path: Path) -> list[Finding]:
    """That of a file, or all of a directory, in the order of their numbers.

    Raises:
        UsageError: there is none, or a file is something else.
    """
    # What is simulated, and no finding, stands beside them.
    files = [each for each in path.glob("*.json") if each.stem != "published"] if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} has no findings: name a directory that migpool lab run --results has written")
    found = [read_form(each, Finding, "finding of an experiment", "migpool lab run --results") for each in files]
    return sorted(found, key=_number)


def _there(folder: Path) -> Iterator[Finding]:
    for path in folder.glob("*.json"):
        try:
            yield Finding.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue  # not a finding, or one of a form that this version does not know


def _number(finding: Finding) -> tuple[str, int, str]:
    return in_order(finding.id)
