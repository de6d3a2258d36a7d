"""Outlines as trees on a terminal, of whatever width it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

if TYPE_CHECKING:
    from migpool.streams.inspect.outline import Node

__all__ = ["print_trees"]


def print_trees(roots: Sequence[Node]) -> None:
    """Print one tree after the other on stdout."""
    console = Console(file=sys.stdout)
    for root in roots:
        tree = Tree(_line(root, 0), guide_style="dim", highlight=False)
        _grow(tree, root)
        console.print(tree)


def _grow(tree: Tree, node: Node) -> None:
    width = max((len(below.label) for below in node.below if below.detail), default=0)
    for below in node.below:
        _grow(tree.add(_line(below, width)), below)


def _line(node: Node, width: int) -> Text:
    style = "bold red" if node.bad else "bold"
    line = Text(node.label, style=style)
    if node.detail:
        line.append(" " * (max(0, width - len(node.label)) + 2), style="")
        line.append(node.detail, style="red" if node.bad else "not bold")
    return line
