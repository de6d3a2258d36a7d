"""Puts the page together: one HTML file with its style, its script, its values and the plotting library inside.

The library is plotly, as its Python package carries it. A content security policy in the page forbids every request,
so that a mistake cannot make one. Text is escaped where it becomes HTML (``tables.py``), in the values for the script
(``_values``), and by the script where the library reads markup in labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from migpool.lab.report.page.contents import contents
from migpool.lab.report.page.headline import headline
from migpool.lab.report.page.tables import section
from migpool.lab.run.result import LabResult

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def document(results: Sequence[LabResult], title: str) -> str:
    """The page.

    Arguments:
        results: of one scenario or of several; those of the same scenario on the same host are told as one.
    """
    # It takes a moment to import, and only a page needs it.
    from plotly.offline import get_plotlyjs

    parts = joined(results)
    own = files("migpool.lab.report.page")
    described = escape(next((headline(part) for part in parts), ""), quote=True)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="description" content="{described}">',
            f"<title>{escape(title)}</title>",
            '<link rel="icon" href="data:,">',
            f"<style>\n{own.joinpath('page.css').read_text('utf-8')}</style>",
            "</head>\n<body>",
            '<header><h1>migpool</h1><button id="theme" type="button">dark</button></header>\n<main>',
            *(section(part, number) for number, part in enumerate(parts)),
            "</main>",
            f'<script type="application/json" id="values">{_values(parts)}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>\n{own.joinpath('page.js').read_text('utf-8')}</script>",
            "</body>\n</html>\n",
        ]
    )


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


def _values(parts: Sequence[LabResult]) -> str:
    """JSON that may stand within a script element, whatever the names in it are."""
    text = json.dumps(contents(parts), ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
