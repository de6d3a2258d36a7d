"""Draws some rectangles, lines and texts as one SVG file.

A plotting library would bring in a numeric one and take longer to import than to draw. The colours follow the reader's
light or dark theme by a media query. Every text is escaped, and nothing is fetched from anywhere.
"""

from __future__ import annotations

from typing import Final
from xml.sax import saxutils

from migpool.untrusted.text import printable

_LIGHT: Final = """svg { background: #ffffff; font: 13px system-ui, sans-serif }
text { fill: #1f2328 } .quiet { fill: #59636e } .lane { fill: #f3f4f6 } .line { stroke: #8b949e; stroke-width: 1 }"""
_DARK: Final = """svg { background: #0d1117 }
text { fill: #e6edf3 } .quiet { fill: #9198a1 } .lane { fill: #161b22 } .line { stroke: #656c76 }"""


def escape(text: str) -> str:
    """Text that is no markup, and is read as it stands."""
    return saxutils.escape(printable(text))


class Drawing:
    """A drawing; lengths are in pixels, from its upper left corner. A shape's ``kind`` is its class in the style.

    Arguments:
        width: of all of it.
        light: the style of its own classes; "quiet", "lane" and "line" are there.
        dark: what of it is different for who reads in the dark.
    """

    def __init__(self, width: int, light: str, dark: str) -> None:
        self._width = width
        self._style = f"\n{_LIGHT}\n{light}\n@media (prefers-color-scheme: dark) {{\n{_DARK}\n{dark}\n}}\n"
        self._shapes: list[str] = []

    def rect(self, kind: str, x: float, y: float, width: float, height: float) -> None:
        """A rectangle."""
        self._add(f'<rect class="{kind}" x="{x}" y="{y}" width="{round(width, 2)}" height="{height}"/>')

    def circle(self, kind: str, x: float, y: float, radius: int) -> None:
        """A disc."""
        self._add(f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}"/>')

    def line(self, kind: str, begin: tuple[float, float], end: tuple[float, float], *, dashed: bool = False) -> None:
        """A line."""
        dashes = ' stroke-dasharray="3 3"' if dashed else ""
        (x, y), (to_x, to_y) = begin, end
        self._add(f'<line class="{kind}" x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}"{dashes}/>')

    def path(self, kind: str, steps: str, title: str) -> None:
        """A filled path of SVG's steps, which tells its title to a mouse over it."""
        self._add(f'<path class="{kind}" d="{steps}"><title>{escape(title)}</title></path>')

    def text(self, x: float, y: float, text: str, kind: str = "", *, anchor: str = "start", size: int = 0) -> None:
        """A line of text at (or with ``anchor`` "end" or "middle", up to, or around) ``x``; ``size`` 0 is the usual."""
        more = f' class="{kind}"' if kind else ""
        more += f' text-anchor="{anchor}"' if anchor != "start" else ""
        more += f' font-size="{size}"' if size else ""
        self._add(f'<text x="{x}" y="{y}"{more}>{escape(text)}</text>')

    def document(self, title: str, height: int, at: tuple[int, int]) -> str:
        """The file's text.

        Arguments:
            title: what it shows; written at ``at``.
            height: of all of it.
        """
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._width} {height}" width="{self._width}" '
            f'height="{height}" role="img" aria-label={saxutils.quoteattr(printable(title))}>'
        )
        named = f'<text x="{at[0]}" y="{at[1]}" font-size="17" font-weight="600">{escape(title)}</text>'
        return "\n".join([head, f"<style>{self._style}</style>", named, *self._shapes, "</svg>"]) + "\n"

    def _add(self, shape: str) -> None:
        self._shapes.append(shape)
