"""What the build must not accept: each is a small project of its own, built with the site's configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.site


def build(top: Path, words: str) -> subprocess.CompletedProcess[str]:
    """Build a site of a first page and one with these words."""
    (top / "docs").mkdir()
    (top / "docs" / "index.md").write_text("# First\n")
    (top / "docs" / "other.md").write_text(f"# Other\n\n{words}\n")
    (top / "README.md").write_text("# Read me\n\n## A place\n")
    options = ["--quiet", "--fail-on-warning", "--conf-dir", str(ROOT / "docs" / "site")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(top), str(top / "site")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        # Sphinx leaves the traceback of what a diagram breaks in a temporary file.
        env={**os.environ, "TMPDIR": str(top)},
    )


def test_links_that_lead_somewhere_are_taken(tmp_path: Path) -> None:
    done = build(tmp_path, "[a page](../README.md), [a place](../README.md#a-place), [the first](index.md)")
    assert done.returncode == 0, done.stderr
    assert "Other" in (tmp_path / "site" / "docs" / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("[gone](../GONE.md)", "GONE.md"),
        ("[no place](../README.md#no-such-place)", "no-such-place"),
        ("[no place here](#nor-here)", "nor-here"),
        ("![no picture](pictures/none.svg)", "none.svg"),
        ("```{eval-rst}\n.. automodule:: migpool.no_such\n```", "no_such"),
        ("```mermaid\nflowchart LR\n    a --> --> [\n```", "other"),
    ],
)
def test_what_leads_nowhere_fails_with_its_name(words: str, named: str, tmp_path: Path) -> None:
    done = build(tmp_path, words)
    assert done.returncode != 0
    assert named in done.stderr
