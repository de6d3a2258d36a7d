"""The tutorials work as they stand there: each is typed from its top, and says what is printed beneath.

A ``text`` block is what the block before it printed. The directory is a checkout's as far as tutorials need one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.commandline import here
from tests.support.new_package import announce

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SAYS = re.compile(r"^It says `([^`]+)`", re.MULTILINE)
COMMANDS = ("migpool", "pip", "xz")


class Reader:
    """Somebody who types a tutorial, block by block."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self._path, self._patch = path, patch
        self.packages: list[Path] = []
        self.printed = ""
        (path / "tests").symlink_to(ROOT / "tests")
        patch.chdir(path)

    def type(self, line: str) -> None:
        words = shlex.split(line)
        assert words[0] in COMMANDS, f"{line}: who is to type that?"
        if words[0] == "migpool":
            ended = here(*words[1:], extra={"COLUMNS": "300", "PYTHONPATH": self._import_path()})
            assert ended.code == 0, f"{line}: {ended.err}"
            self.printed += ended.out
        elif words[0] == "pip":
            assert words[1:3] == ["install", "-e"]
            self._install(self._path / words[3].removesuffix("[test]"))
        else:
            subprocess.run(["/bin/sh", "-ec", line], check=True, timeout=20, cwd=self._path)

    def _install(self, package: Path) -> None:
        announce(package)
        self.packages.append(package)
        self._patch.syspath_prepend(package / "src")

    def _import_path(self) -> str:
        sources = [str(package / "src") for package in self.packages]
        return os.pathsep.join(filter(None, [*sources, os.environ.get("PYTHONPATH", "")]))

    def run(self, code: str, name: str) -> None:
        """Run Python; a class that a package is to have becomes the package's."""
        for package in self.packages:
            (source,) = package.glob("src/*/__init__.py")
            if f"`{source.relative_to(self._path)}` into" in self.read:
                source.write_text(code)
                sys.modules.pop(source.parent.name, None)
                return
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, name, "exec", dont_inherit=True), {"__name__": "tutorial"})
        self.printed += out.getvalue()

    read = ""
    """The words before the block."""


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_works_as_it_is_read(tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tutorial.read_text("utf-8")
    reader = Reader(tmp_path, monkeypatch)
    blocks = list(BLOCK.finditer(text))
    assert blocks
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        kind, body = block.groups()
        reader.read = text[: block.start()]
        if kind == "text":
            assert in_one_line(body) in in_one_line(reader.printed)
            continue
        reader.printed = ""
        if kind == "console":
            for line in body.splitlines():
                assert line.startswith("$ ")
                reader.type(line.removeprefix("$ "))
        else:
            assert kind == "python"
            reader.run(body, tutorial.name)
        said = SAYS.findall(text[block.end() : after.start() if after else None])
        assert all(one == reader.printed.strip() for one in said)
