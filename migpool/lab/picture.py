"""The table of a comparison as a picture that a page can show."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from migpool.lab.result import LabResult
from migpool.lab.table import render

__all__ = ["picture"]

WIDTH = 100
FONT_FACES = re.compile(r"@font-face\s*{[^}]*}")
COLOURS = [(40, 44, 52), (200, 60, 60), (60, 150, 80), (180, 130, 30), (70, 110, 190), (140, 80, 170), (40, 140, 150)]
THEME = TerminalTheme((252, 252, 250), (40, 44, 52), [*COLOURS, (90, 96, 106)], [*COLOURS, (40, 44, 52)])


def picture(result: LabResult, title: str) -> str:
    """Draw the result's table.

    Arguments:
        result: of at least one run.
        title: stands above it.

    Returns:
        An SVG document that fetches nothing: the reader's own monospaced font is used.
    """
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(result, WIDTH))
    drawn = console.export_svg(title=title, theme=THEME)
    return FONT_FACES.sub("", drawn).replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
