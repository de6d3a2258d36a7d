"""The page of a sweep: the answer, what each axis does, and heat maps over any two of them.

It is put together as every page of this project is (``migpool/lab/report/page/document.py``): one file, no request.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from pydantic import JsonValue

from migpool.lab.report.page.document import assembled, escape, table
from migpool.sweeps.matters import Cell, Findings
from migpool.sweeps.points import Plan
from migpool.units import count_of


def page(plan: Plan, found: Findings) -> str:
    """The text of the page's file."""
    file = plan.sweep.file
    title = f"migpool: sweep {file.name}"
    return assembled(
        title=title,
        description=found.told[0],
        parts="\n".join(_parts(plan, found)),
        values=_values(found),
        script=files("migpool.sweeps").joinpath("page.js").read_text("utf-8"),
    )


def _parts(plan: Plan, found: Findings) -> Iterator[str]:
    file = plan.sweep.file
    how = "simulated" if file.mode == "simulated" else "run"
    space = "a sample" if file.sample is not None else "a grid"
    yield '<section class="part">'
    yield (
        f'<p class="scenario">Sweep <b>{escape(file.name)}</b> of scenario {escape(file.scenario)}: '
        f"{count_of(found.points, 'point')}, {how}, {space}</p>"
    )
    yield f'<h2 class="headline">{escape(found.told[0])}</h2>'
    if found.failed:
        yield f'<p class="bad">{found.failed} have no downtime; the first: {escape(found.first_error)}</p>'
    if found.all is None:
        yield "</section>"
        return
    yield f'<p class="rest">{escape(" ".join(found.told[1:2]))}</p>'
    yield "<h3>Models</h3>"
    yield from table(
        ("Model", "Best or ties", "Longer than the best", "Downtime, median"),
        [
            (
                model,
                f"{100 * found.wins.get(model, 0) / found.all.places:.0f} %",
                f"{100 * found.all.slower[model]:.1f} %",
                f"{found.all.downtime[model]:.1f} ms",
            )
            for model in sorted(found.models, key=lambda model: found.all.slower[model] if found.all else 0.0)
        ],
    )
    yield "<h3>What matters</h3>"
    yield (
        '<p class="hint">How much of the downtime goes with each axis: the share of the variance of its logarithm, '
        "under the best model at each place.</p>"
    )
    yield '<div class="chart" id="matters"></div>'
    yield "<h3>Where which model wins</h3>"
    yield '<div class="controls"><label>show <select id="shown"></select></label>'
    yield '<label>across <select id="across"></select></label><label>down <select id="down"></select></label></div>'
    yield '<div class="chart" id="map"></div>'
    for axis in found.axes:
        yield f"<h3>{escape(axis.key)}</h3>"
        yield from table(
            ("Value", "Places", "Best", *(f"{model}, median" for model in found.models)),
            [
                (
                    axis.stretches[at].label,
                    str(cell.places),
                    cell.told,
                    *(f"{cell.downtime[model]:.1f} ms" for model in found.models),
                )
                for at, cell in axis.cells.items()
            ],
        )
    yield "<h3>What it rests on</h3><p>"
    yield escape(
        "The points are simulated: no claim about a host, but about what the jobs, locks, workers and channels make of "
        "its devices. What the simulator leaves out stands at the top of migpool/sim/simulate.py."
        if file.mode == "simulated"
        else "Each point is a migration between two processes, one at a time on its host."
    )
    yield "</p></section>"


def _values(found: Findings) -> dict[str, JsonValue]:
    return {
        "models": list(found.models),
        "axes": [
            {
                "key": axis.key,
                "labels": [one.label for one in axis.stretches],
                "share": axis.share,
                "factor": axis.factor,
                "cells": [[at, -1, _cell(cell)] for at, cell in axis.cells.items()],
            }
            for axis in found.axes
        ],
        "maps": [
            {"x": x, "y": y, "cells": [[across, down, _cell(cell)] for (across, down), cell in cells.items()]}
            for (x, y), cells in found.maps.items()
        ],
    }


def _cell(cell: Cell) -> dict[str, JsonValue]:
    return {
        "places": cell.places,
        "best": list(cell.best),
        "told": cell.told,
        "slower": {model: round(share, 5) for model, share in cell.slower.items()},
        "downtime": {model: round(time, 4) for model, time in cell.downtime.items()},
    }
