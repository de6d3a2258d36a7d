"""Whatever goes wrong in the guest of ``make kernel`` is seen outside, and a guest that hangs is ended."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

import pytest

from tests.kernel.cpio import Archive
from tests.kernel.initramfs import PACKAGES
from tests.kernel.machine import verdict, watch

GOOD = b"===== 54 passed in 35.31s =====\nguest: the tests ended with status 0 after 51.8 s\n"
QUIET = b"[    0.1] Linux\n"


def test_all_passed() -> None:
    assert verdict(GOOD, QUIET, late=0) == ""


FAILS_ONCE = """
import pathlib

def test_it():
    seen = pathlib.Path(__file__).with_suffix(".seen")
    first, _ = not seen.exists(), seen.touch()
    assert not first, "the first try"
"""


@pytest.mark.parametrize(("reruns", "status"), [("0", 1), ("1", 0)])
def test_a_test_that_failed_runs_once_more_as_elsewhere(tmp_path: Path, reruns: str, status: int) -> None:
    """With what the targets give the guest, and with no plug-in of pytest's but the guest's."""
    targets = ("kernel", "nested", "iommufd")
    asked = ["make", "--dry-run", *targets, f"RERUNS={reruns}"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    given = [line.partition(" -m tests.kernel ")[2].split() for line in said.splitlines()]
    options, *others = [words[1:] for words in given if words]
    assert others == [options] * (len(targets) - 1)
    found = (distribution(package).entry_points.select(group="pytest11") for package in PACKAGES)
    plugins = [word for several in found for plugin in several for word in ("-p", plugin.value)]
    (tmp_path / "test_once.py").write_text(FAILS_ONCE)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "/dev/null", *plugins, *options, "test_once.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
    assert b"the first try" in ran.stdout
    assert (b", 1 rerun in " in ran.stdout) is (reruns == "1")
    ended = b"guest: the tests ended with status %d after 51.8 s\n" % ran.returncode
    assert bool(verdict(ran.stdout + ended, QUIET, late=0)) is bool(status)


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
