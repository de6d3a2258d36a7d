"""Every console block of every page works as it stands there, and prints what stands beneath.

The commands are typed as printed, block by block, each block in a directory of its own (``console.py``). What is not
run here has its reason in ``NOT_RUN``, says what else runs it, and must be a command with such options.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from migpool import PoolFull, WorkerPool
from migpool.device import DeviceContext
from tests.docs.blocks import BLOCKS, Block, block, of_kind
from tests.docs.console import Typed, World, typed
from tests.docs.reference import commands, option_words
from tests.support import ROOT
from tests.support.making_vcpus import WITHOUT_KVM, WITHOUT_UNICORN
from tests.support.rig import migrate

CONSOLE: Final = of_kind("console")
NOT_RUN: Final = {
    "git clone": "the clone is what is tested",
    "cd": "the shell's own",
    "make": "a target that sets up, and runs these tests or needs root; a test finds one that is not there",
    "pip install": "needs a package index: the package is made known as an installer would",
    "qemu-system-x86_64": "needs QEMU: tests/qemu/test_qemu_docs.py, and tests/vfio/test_vfiouser_in_qemu.py",
    "virsh": "needs libvirt, and the page says so; what it hands to QEMU, tests/qemu/test_qemu_docs.py does",
    "dask": "needs Dask, and stays: tests/site/test_docs_cluster.py types it, in make docs",
    "migpool conformance my-device": "a minute of checks; the tutorial, which is typed, checks it under one model",
    "migpool conformance vfio": "a minute of checks; tests/site/test_docs_slowly.py types it for one model",
    "migpool vmsd diff --qemu": "needs two QEMUs: tests/streams/test_compare_programs.py has programs in their place",
    "migpool lab sweep sweep.toml --cluster": "needs Dask: tests/site/test_docs_cluster.py types it, in make docs",
    "migpool compare many --hosts": "needs Dask: tests/site/test_docs_cluster.py types it, in make docs",
    "migpool lab run": "takes from a minute to forty on a quiet machine; tests/experiments runs smaller experiments",
    ".venv/bin/pytest": "is what runs this; tests/site/test_docs_slowly.py sees that it finds tests",
    ".venv/bin/mypy": "make lint is that",
    ".venv/bin/ruff": "make lint is that",
    "git tag": "publishes",
    "git push": "publishes",
}


def reason(words: list[str]) -> str:
    """Why a command is not run; empty if it is."""
    return next((why for begin, why in NOT_RUN.items() if words[: len(begin.split())] == begin.split()), "")


@pytest.fixture
def world(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(block.page, tmp_path, monkeypatch, stack)


def beneath(line: Typed, printed: str) -> list[str]:
    """The lines that stand beneath a command and were not printed, in their order."""
    said = iter(" ".join(one.split()) for one in printed.splitlines())
    return [one for one in line.shown if one != "..." and " ".join(one.split()) not in said]


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_a_console_block_runs_as_printed(block: Block, world: World) -> None:
    if "guest" in block.text and WITHOUT_KVM and WITHOUT_UNICORN:
        pytest.skip(f"{WITHOUT_KVM}; {WITHOUT_UNICORN}")
    for line in typed(block.text):
        if line.prompt == "(qemu)":
            continue  # typed by tests/qemu/test_qemu_docs.py and tests/vfio/test_vfiouser_in_qemu.py
        for words in line.commands:
            if words[1:2] == ["report"]:
                shutil.copy("result.json", "other.json")
            if words[:2] == ["pip", "install"]:
                world.install(words)
            if not reason(words):
                assert beneath(line, world.type(words)) == []


def test_what_is_shown_and_not_printed_is_found() -> None:
    line = typed("$ migpool a\nfirst   line\n...\nlast\n")[0]
    assert line.commands == [["migpool", "a"]]
    assert beneath(line, "first line\nmore\nlast\n") == []
    assert beneath(line, "last\nfirst line\n") == ["last"]
    assert beneath(line, "first line\n") == ["last"]


@pytest.mark.parametrize("begin", NOT_RUN)
def test_what_is_not_run_stands_there_with_options_that_there_are(begin: str) -> None:
    known = {name: option_words(function) for name, function in commands()}
    lines = [line for block in CONSOLE for line in typed(block.text)]
    found = [words for line in lines for words in line.commands if reason(words) == NOT_RUN[begin]]
    assert found, "no such command is printed any more: remove its reason"
    for place in re.findall(r"tests/[\w/.]+", NOT_RUN[begin]):
        assert (ROOT / place).exists()
    for words in found:
        if words[0] == "migpool":
            name = words[1] if words[1] in known else " ".join(words[1:3])
            assert {word for word in words if word.startswith("-")} <= known[name]
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def inline() -> list[tuple[str, str]]:
    """Every command of migpool's within a sentence, with its page."""
    found = []
    for page in sorted({one.page for one in BLOCKS} | {"SECURITY.md", "docs/glossary.md", "docs/hand-over.md"}):
        text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        found += [(page, " ".join(words.split())) for words in re.findall(r"`(migpool [^`]+)`", text)]
    return found


def test_a_command_within_a_sentence_is_one_with_such_options() -> None:
    known = {name: option_words(function) for name, function in commands()}
    groups = {name.split()[0] for name in known if " " in name}
    wrong = []
    for page, text in inline():
        words = text.split(" -- ")[0].split()
        name = words[1] if words[1] in known else " ".join(words[1:3])
        options = {word for word in words if re.match(r"--?\w", word)}
        if name not in known and ((len(words) == 2 and words[1] in groups) or words[1] == "COMMAND"):
            continue
        if name not in known or not options <= known[name] | {"--help", "--debug"}:
            wrong.append(f"{page}: {text}")
    assert wrong == []


def test_the_plugin_migrates(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(block("docs/device-plugins.md", "python"), "device-plugins.md", "exec"), names)
    make = names["devices"]
    assert callable(make)
    source, destination = make(DeviceContext("source")), make(DeviceContext("destination"))
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == ""
    assert destination[0].ticks == 1234


def test_the_pool_says_full() -> None:
    code = block("README.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["future"].result() == 1024
    assert "PoolFull" in code
    with WorkerPool(1, max_pending=0) as pool:
        gate = threading.Event()
        pool.submit(gate.wait, 10)
        with pytest.raises(PoolFull):
            pool.try_submit(gate.wait, 10)
        gate.set()


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text()))
def test_what_the_readme_points_to_is_there(path: str) -> None:
    assert (ROOT / path).exists()
