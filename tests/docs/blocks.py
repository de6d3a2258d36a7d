"""Every code block of every page, and of those that are not run why: nothing on the site is left unlooked at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import ROOT

FENCE: Final = re.compile(r"^\s*(`{3,}|~{3,})\s*(.*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Arguments:
        page: its page, from the project's top.
        line: where it begins there, from 1.
        kind: what stands behind the fence.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def tutorial(self) -> bool:
        """Whether it is typed with all others of its page, in order, by ``test_tutorials.py``."""
        return self.page.startswith("docs/tutorials/")


def pages() -> list[Path]:
    """Every page of the site."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks_of(page: str, text: str) -> list[Block]:
    """The blocks of a page.

    Raises:
        ValueError: a fence that is never closed.
    """
    found: list[Block] = []
    fence, kind, begin, lines = "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if not fence and match:
            fence, kind, begin, lines = match[1], match[2].strip(), number, []
        elif fence and match and match[1].startswith(fence) and not match[2]:
            found.append(Block(page, begin, kind, "".join(f"{each}\n" for each in lines)))
            fence = ""
        elif fence:
            lines.append(line)
    if fence:
        raise ValueError(f"{page}:{begin}: this block never ends")
    return found


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


BLOCKS: Final = [block for path in pages() for block in blocks_of(named(path), path.read_text("utf-8"))]


def of_kind(kind: str) -> list[Block]:
    """All of one kind that are not a tutorial's."""
    return [block for block in BLOCKS if block.kind == kind and not block.tutorial]


def block(page: str, kind: str, word: str = "") -> str:
    """The one block of a kind on a page in which a word stands."""
    (found,) = [one.text for one in BLOCKS if (one.page, one.kind) == (page, kind) and word in one.text]
    return found
