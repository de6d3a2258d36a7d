"""Whatever goes wrong in the guest of ``make kernel`` is seen outside, and a guest that hangs is ended."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.kernel.cpio import Archive
from tests.kernel.machine import verdict, watch

GOOD = b"===== 54 passed in 35.31s =====\nguest: the tests ended with status 0 after 51.8 s\n"
QUIET = b"[    0.1] Linux\n"


def test_all_passed() -> None:
    assert verdict(GOOD, QUIET, late=0) == ""


@pytest.mark.parametrize(
    ("said", "kernel", "late", "words"),
    [
        (GOOD, QUIET, 600, "did not end within 600 s; its kernel's last words: [    0.1] Linux"),
        (b"", b"", 600, "last words: none"),
        (b"", QUIET, 0, "ended before its tests did"),
        (GOOD.split(b"\n")[0], QUIET, 0, "ended before its tests did"),
        (GOOD, b"[ 9.1] BUG: unable to handle page fault\n[ 9.2] more\n", 0, "complained: [ 9.1] BUG: unable"),
        (GOOD, b"[ 9.1] Kernel panic - not syncing\n", 0, "complained: [ 9.1] Kernel panic"),
        (GOOD.replace(b"status 0", b"status 1"), QUIET, 0, "pytest ended with status 1"),
        (GOOD.replace(b"status 0", b"status 5"), QUIET, 0, "pytest ended with status 5"),
        (GOOD.replace(b"54 passed", b"54 skipped"), QUIET, 0, "no test has run"),
    ],
)
def test_anything_else_is_a_failure(said: bytes, kernel: bytes, late: float, words: str) -> None:
    assert words in verdict(said, kernel, late)


def test_what_it_prints_is_passed_on(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    said, late = watch([sys.executable, "-c", "print('one'); print('two')"], 60)
    assert (said, late) == (b"one\ntwo\n", False)
    assert capfdbinary.readouterr().out == said


@pytest.mark.parametrize("program", ["print('up', flush=True)", "os.close(1)"])
def test_one_that_hangs_is_ended(program: str) -> None:
    forever = f"import os, signal, sys; {program}; signal.pause()"
    _said, late = watch([sys.executable, "-c", forever], 1)
    assert late


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    if shutil.which("cpio") is None:
        pytest.skip("cpio is not installed")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/odd").write_bytes(b"12345")
    file = io.BytesIO()
    with Archive(file) as archive:
        archive.add("init", b"#!/bin/x\n", 0o755)
        archive.add_tree(PurePosixPath("etc"), tmp_path / "tree")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    command = ["cpio", "--quiet", "-i", "-d", "-H", "newc"]
    subprocess.run(command, input=file.getvalue(), cwd=unpacked, check=True, timeout=60)
    assert (unpacked / "etc/deep/odd").read_bytes() == b"12345"
    assert (unpacked / "init").stat().st_mode & 0o777 == 0o755
