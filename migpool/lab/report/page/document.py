"""Puts the page together: one HTML file with its style, its script, its values and the plotting library inside.

The library is plotly, as its Python package carries it; pages of one directory may share it as a file. A content
security policy in ``page.html`` forbids every request but that, so that a mistake cannot make one. The parts that are
text are there without a script too. Text is escaped where it becomes HTML, in the values for the script (``_values``),
and by the script where the library reads markup in labels.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from string import Template

from pydantic import JsonValue

from migpool.lab.report.change import HEADS, NOTHING, changes, differences
from migpool.lab.report.page.contents import contents
from migpool.lab.report.summary import (
    ModelSummary,
    answer,
    checkpoint_rows,
    foundations,
    headline,
    limit_line,
    summarize,
)
from migpool.lab.run.result import LabResult
from migpool.units import format_duration, format_share
from migpool.untrusted.text import printable, printable_values


def document(results: Sequence[LabResult], title: str, before: LabResult | None = None, library: str = "") -> str:
    """The page.

    Arguments:
        results: of one scenario or of several; those of the same scenario on the same host are told as one.
        before: an earlier one, beside which the others are set.
        library: the name of a file beside it that has the plotting library, for pages that share one; empty to have it
            inside.
    """
    after = joined(results)
    parts = after if before is None else [*after, before]
    sections = [line for number, part in enumerate(parts) for line in _section(part, f"part-{number}")]
    if before is not None:
        sections = [line for part in after for line in _beside(before, part)] + sections
    return assembled(
        title=title,
        description=next((headline(part) for part in parts), ""),
        parts="\n".join(sections),
        values=contents(parts),
        script=_own("page.js"),
        library=library,
    )


def assembled(
    *, title: str, description: str, parts: str, values: dict[str, JsonValue], script: str, library: str = ""
) -> str:
    """A page of this project's form.

    Arguments:
        parts: HTML, in which every name is escaped.
        values: for the script, which finds what charts have in common before itself (``charts.js``).
        library: as for :func:`document`.
    """
    if library:
        plotly, where = f'<script src="{escape(library)}"></script>', " 'self' file:"
    else:
        # It takes a moment to import, and only a page needs it.
        from plotly.offline import get_plotlyjs

        plotly, where = f"<script>{get_plotlyjs()}</script>", ""
    return Template(_own("page.html")).substitute(
        description=escape(description),
        title=escape(title),
        style=_own("page.css"),
        parts=parts,
        values=_values(values),
        library=plotly,
        beside=where,
        script=_own("charts.js") + script,
    )


def escape(text: str) -> str:
    """Text that is no markup, and is read as it stands."""
    return html.escape(printable(text))


def _own(name: str) -> str:
    return files("migpool.lab.report.page").joinpath(name).read_text("utf-8")


def joined(results: Sequence[LabResult]) -> list[LabResult]:
    """Results of one scenario on one host become one, with the runs of all."""
    parts: list[LabResult] = []
    for result in results:
        for at, part in enumerate(parts):
            if (part.scenario, part.settings, part.machine) == (result.scenario, result.settings, result.machine):
                parts[at] = part.model_copy(update={"runs": [*part.runs, *result.runs]})
                break
        else:
            parts.append(result)
    return parts


def _values(values: dict[str, JsonValue]) -> str:
    """JSON that may stand within a script element, whatever the names in it are."""
    text = json.dumps(printable_values(values), ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _beside(before: LabResult, after: LabResult) -> Iterator[str]:
    """The first part of a page of two results: what became of each model, and what else is not as it was."""
    found = changes(before, after)
    yield '<section class="part"><p class="scenario">Before and after</p>'
    if not found:
        yield f'<h2 class="headline">{NOTHING}</h2></section>'
        return
    yield f'<h2 class="headline">{escape(str(found[0]))}</h2>'
    yield f'<p class="rest">{escape(" ".join(map(str, found[1:])))}</p>'
    yield from table(HEADS, [change.cells() for change in found])
    yield "<h3>What else is not as it was</h3><ul>"
    yield "".join(f"<li>{escape(one)}</li>" for one in differences(before, after)) or "<li>nothing</li>"
    yield "</ul><p>Below: the later result, then the earlier one.</p></section>"


def _section(result: LabResult, name: str) -> Iterator[str]:
    """One part of the page. ``name``: the script looks for its charts by it."""
    summaries = summarize(result.runs)
    yield f'<section class="part" id="{name}">'
    explained = next((run for run in result.runs if run.checkpoints), None)
    yield f'<p class="scenario">{"Scenario" if explained is None else "Trace of"} <b>{escape(result.scenario)}</b></p>'
    first = headline(result)
    yield f'<h2 class="headline">{escape(first or "No run completed.")}</h2>'
    if limit_line(result):
        yield f'<p class="proof"><a href="#{name}-switchover" id="{name}-proof">Where the time line shows it</a></p>'
    if explained is None:
        yield f'<p class="rest">{escape(answer(summaries))}</p>'
        yield from _models(summaries)
    else:
        yield from table(("Checkpoint", "At", "Since the one before"), checkpoint_rows(explained))
    for run in result.runs:
        if run.error:
            yield f'<p class="bad">{escape(f"{run.model}, run {run.repeat}: {run.outcome}: {run.error}")}</p>'
    if first:
        done = [one.model for one in summaries if one.downtime is not None]
        models = "".join(f'<option value="{at}">{escape(model)}</option>' for at, model in enumerate(done))
        yield Template(_own("charts.html")).substitute(part=name, models=models).rstrip("\n")
        if any(run.analysis is not None and run.analysis.memory for run in result.runs):
            yield f'<h3>The destination\'s memory</h3><div class="chart" id="{name}-memory"></div>'
        if any(run.analysis is not None and run.link is not None for run in result.runs):
            yield f'<h3>The link</h3><div class="chart" id="{name}-link"></div>'
        if any(run.analysis is not None and run.connections for run in result.runs):
            yield "<h3>Connections</h3>"
            yield f'<div class="scroll"><table class="devices" id="{name}-connections"></table></div>'
        yield f'<h3>Devices</h3><div class="scroll"><table class="devices" id="{name}-devices"></table></div>'
    yield "<h3>What it rests on</h3><dl>"
    facts = [*foundations(result), *([("Runs", str(len(result.runs)))] if explained is None else [])]
    yield "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in facts) + "</dl>"
    yield "</section>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table's HTML; heads and cells are text."""
    yield '<div class="scroll"><table class="models"><thead><tr>'
    yield "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"


def _models(summaries: Sequence[ModelSummary]) -> Iterator[str]:
    yield '<div class="scroll"><table class="models"><thead><tr>'
    heads = ("Model", "Downtime", "Range", "Efficiency", "Threads", "Memory of budget", "Verified")
    yield "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead><tbody>"
    for one in summaries:
        good, said, style = one.verified == one.runs, f"{one.verified} of {one.runs}", "good"
        if not good:
            compared = one.verified + one.uncompared < one.runs
            said, style = (f"{said}, NOT all", "bad") if compared else (f"{said}, others not compared", "")
        cells = (
            f"<b>{escape(one.model)}</b>",
            "none" if one.downtime is None else format_duration(one.downtime / 1e3),
            f"{format_duration(one.least / 1e3).removesuffix(' ms')} to {format_duration(one.most / 1e3)}"
            if one.downtime is not None and one.runs > 1
            else "",
            "" if one.efficiency is None else f"{100 * one.efficiency:.0f} %",
            f"{sum(one.threads)} ({one.threads[0]} + {one.threads[1]})",
            format_share(one.high_water, one.budget) if one.budget else "",
            f'<span class="{style}">{said}</span>',
        )
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div>"
