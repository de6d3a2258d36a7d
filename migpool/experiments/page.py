"""What an experiment found as a page of Markdown, and the index of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from migpool.experiments.finding import ComparisonFinding, FieldFinding, Finding, VariantFinding
from migpool.experiments.growing_pools import told
from migpool.experiments.verdict import expected
from migpool.units import format_duration

SHOWN_KINDS = 3

ENDED = {
    "narrow": "every interval was narrow enough",
    "time": "the time was up",
    "cancelled": "it was cancelled",
    "failures": "too many runs failed",
    "counted": "everything was counted, or the time was up",
}


def index(findings: Sequence[Finding]) -> str:
    """A table of all verdicts, with a link to each page."""
    first = findings[0]
    lines = ["# Experiments", "", _machine(first), ""]
    if any(one.quick or one.preliminary for one in findings):
        lines += ["Some of these are preliminary: their pages say why.", ""]
    lines += ["| | claim | by | verdict | |", "|---|---|---|---|---|"]
    for one in findings:
        note = "preliminary" if one.preliminary else ""
        lines.append(f"| [{one.id}]({one.id}.md) | {_cell(one.claim)} | {_cell(one.by)} | **{one.verdict}** | {note} |")
    lines += _all_growing(findings)
    lines += [
        "",
        "A ratio is taken within a round of runs; its interval is that of the median over the rounds, by order "
        "statistics, 95 % unless a page says otherwise.",
    ]
    return "\n".join(lines) + "\n"


def _all_growing(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each machine on which a fixed pool is worse."""
    worse = [(one.id, field) for one in findings for field in one.growing if field.worse]
    if worse:
        yield from ("", "Where a pool of a fixed size is worse, and how those do that grow:", "")
        yield from (f"* {name}: {told(field)}" for name, field in worse)


def page(finding: Finding, picture: str) -> str:
    """One experiment's page. ``picture``: the name of its SVG file."""
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
        *_counts(finding),
        *_growing(finding.growing),
        *_variants(finding.variants),
        "## Circumstances",
        "",
        _machine(finding),
        "",
        _effort(finding),
        "",
        *(f"* failed: {line}" for line in finding.failures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _comparisons(comparisons: Sequence[ComparisonFinding]) -> Iterator[str]:
    if not comparisons:
        return
    yield from ("## Ratios", "", "| ratio | of | to | median | interval | covers | rounds | expected | |")
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in comparisons:
        what = "" if one.measure == "downtime" else f" ({one.measure})"
        found = " | ".join(one.cells("{:.1%}"))
        yield (
            f"| {_cell(one.name)}{what} | {_cell(one.of)} | {_cell(one.to)} | {found} | {len(one.ratios)} "
            f"| {expected(one.least, one.most)} | {one.outcome}{'' if one.decides else ', decides nothing'} |"
        )
    yield ""


def _counts(finding: Finding) -> Iterator[str]:
    if not finding.counts:
        return
    yield from ("## Counts", "", "| what must not be | model | of | were | |", "|---|---|---|---|---|")
    for one in finding.counts:
        yield f"| {_cell(one.what)} | {one.model or 'all'} | {one.total} | {one.wrong} | {one.outcome} |"
    yield ""
    for one in finding.counts:
        yield from (f"* {one.model}{': ' if one.model else ''}{line}" for line in one.examples)
    if any(one.examples for one in finding.counts):
        yield ""


def _growing(fields: Sequence[FieldFinding]) -> Iterator[str]:
    if not fields:
        return
    yield from ("## Pools that grow", "")
    yield from (f"* {told(field)}" for field in fields)
    yield ""


def _variants(variants: Sequence[VariantFinding]) -> Iterator[str]:
    if not variants:
        return
    yield from (
        "## Runs",
        "",
        "| variant | model | downtime, median (least to most) | threads | memory | where it went |",
    )
    yield "|---|---|---|---|---|---|"
    for one in variants:
        times = [time for time in one.downtime_ms if time is not None]
        middle, least, most = (format_duration(of(times) / 1e3) if times else "-" for of in (median, min, max))
        told = f"{middle} ({least} to {most})" if times else "-"
        threads = f"{one.threads.source or 0}+{one.threads.destination or 0}"
        memory = "-" if one.memory_share is None else f"{one.memory_share:.0%} of the budget"
        where = ", ".join(
            f"{kind} {format_duration(spent / 1e3)}" for kind, spent in list(one.where.items())[:SHOWN_KINDS]
        )
        yield f"| {_cell(one.name)} | `{one.model}` | {told} | {threads} | {memory} | {where} |"
    yield ""


def _machine(finding: Finding) -> str:
    return f"{finding.machine}; load average at the beginning of {finding.id}: {finding.load:.1f}."


def _effort(finding: Finding) -> str:
    what = "a quick look" if finding.quick else "the full effort"
    if not finding.rounds:
        return f"{finding.seconds:.0f} s, {what}; {ENDED[finding.ended]}."
    rounds = f"{finding.rounds} {'round' if finding.rounds == 1 else 'rounds'}"
    return (
        f"{rounds} in {finding.seconds:.0f} s, {what}; {ENDED[finding.ended]}. Narrow enough would be "
        f"{finding.precision:.1%} of the ratio to either side, at 95 %."
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
