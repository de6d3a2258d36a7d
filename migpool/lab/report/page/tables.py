"""The parts of the page that are text: they are there without a script too. Whatever comes from a file is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from migpool.lab.report.foundations import Fact, foundations
from migpool.lab.report.page.headline import headline, rest, shown_run
from migpool.lab.report.summary import ModelSummary, summarize
from migpool.lab.run.result import LabResult
from migpool.units import format_duration, format_share


def section(result: LabResult, number: int) -> str:
    """One part of the page. ``number``: its place, from 0: the script looks for its charts by it."""
    return "\n".join(_section(result, f"part-{number}"))


def _section(result: LabResult, name: str) -> Iterator[str]:
    summaries = summarize(result.runs)
    yield f'<section class="part" id="{name}">'
    yield f'<p class="scenario">Scenario <b>{escape(result.scenario)}</b></p>'
    first = headline(result)
    yield f'<h2 class="headline">{escape(first or "No run completed.")}</h2>'
    yield f'<p class="rest">{escape(rest(result))}</p>'
    yield from _models(result, summaries)
    for run in result.runs:
        if run.error:
            yield f'<p class="bad">{escape(f"{run.model}, run {run.repeat}: {run.outcome}: {run.error}")}</p>'
    if first:
        yield from _charts(name, summaries)
    yield from _foundations(result)
    yield "</section>"


def _models(result: LabResult, summaries: Sequence[ModelSummary]) -> Iterator[str]:
    yield '<div class="scroll"><table class="models"><thead><tr>'
    heads = ("Model", "Downtime", "Range", "Efficiency", "Threads", "Memory of budget", "Verified", "Why not less")
    yield "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead><tbody>"
    for one in summaries:
        run = shown_run(result, one.model)
        why = run.analysis.why if run is not None and run.analysis is not None else ""
        good = one.verified == one.runs
        cells = (
            f"<b>{escape(one.model)}</b>",
            "none" if one.downtime is None else format_duration(one.downtime / 1e3),
            f"{format_duration(one.least / 1e3).removesuffix(' ms')} to {format_duration(one.most / 1e3)}"
            if one.downtime is not None and one.runs > 1
            else "",
            "" if one.efficiency is None else f"{100 * one.efficiency:.0f} %",
            f"{sum(one.threads)} ({one.threads[0]} + {one.threads[1]})",
            format_share(one.high_water, one.budget) if one.budget else "",
            f'<span class="good">{one.verified} of {one.runs}</span>'
            if good
            else f'<span class="bad">{one.verified} of {one.runs}, NOT all</span>',
            escape(f"{why[0].upper()}{why[1:]}." if why else ""),
        )
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div>"


def _charts(name: str, summaries: Sequence[ModelSummary]) -> Iterator[str]:
    yield f'<h3>Downtime</h3><div class="chart" id="{name}-downtime"></div>'
    yield '<h3>Where it went</h3><p class="hint">Along the critical path, the mean of the runs; the parts add up.</p>'
    yield f'<p class="legend" id="{name}-kinds-legend"></p><div class="chart" id="{name}-kinds"></div>'
    yield '<h3>The switchover</h3><div class="controls">'
    options = "".join(
        f'<option value="{at}">{escape(one.model)}</option>'
        for at, one in enumerate(one for one in summaries if one.downtime is not None)
    )
    yield f'<label>Model <select id="{name}-model">{options}</select></label>'
    yield f'<span class="choice" id="{name}-by"><button data-by="device" aria-pressed="true">by device</button>'
    yield '<button data-by="thread" aria-pressed="false">by thread</button></span>'
    yield f'<label><input type="checkbox" id="{name}-path" checked> critical path</label></div>'
    yield f'<p class="hint"><span id="{name}-about"></span> <span class="screen">Drag to zoom, double-click '
    yield 'to go back; hatched is waiting.</span><span class="paper">Framed is waiting.</span></p>'
    yield f'<p class="legend" id="{name}-legend"></p>'
    yield f'<div class="chart" id="{name}-switchover"></div>'
    yield f'<h3>If it were free</h3><p class="hint" id="{name}-replay"></p>'
    yield f'<div class="chart" id="{name}-resources"></div>'
    yield f'<h3>The destination\'s memory</h3><div class="chart" id="{name}-memory"></div>'
    yield f'<h3>Devices</h3><div class="scroll"><table class="devices" id="{name}-devices"></table></div>'


def _foundations(result: LabResult) -> Iterator[str]:
    yield "<h3>What it rests on</h3><dl>"
    rows = list(foundations(result))
    rows.append(Fact("Runs", str(len(result.runs))))
    yield "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in rows) + "</dl>"
