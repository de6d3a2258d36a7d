"""What the README and the guides that it leads to show works as it stands there: Python, and every console command.

The commands are typed as printed, block by block, each block in a directory of its own. Small machines stand in it as
files called ``default``, ``guest`` and ``small``, which go before the built-in scenarios of these names; ``HOST`` is
this one and the port one that is free. What is not run has its reason in ``NOT_RUN``, and must be a command with such
options.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import socket
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from migpool import PoolFull, WorkerPool
from migpool.device import DeviceContext
from tests.docs.reference import commands, option_words
from tests.support import ROOT
from tests.support.commandline import Command, announced, here, migpool, scenario_file, started
from tests.support.making_vcpus import WITHOUT_KVM, WITHOUT_UNICORN
from tests.support.monitors import fake_pair
from tests.support.new_package import announce
from tests.support.rig import migrate
from tests.support.save_image import image

GUIDES: Final = ("machine", "comparing-models", "real-migrations", "device-plugins", "threading-models", "experiments")
README = "\n".join(
    path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in GUIDES))
)
BLOCKS = re.findall(r"```(?:python|toml)\n(.*?)```", README, re.DOTALL)
CONSOLE = re.findall(r"```console\n(.*?)```", README, re.DOTALL)

NOT_RUN: Final = {
    "git clone": "the clone is what is tested",
    "cd": "the shell's own",
    "make": "sets up, and runs these tests",
    "pip install": "needs a package index: the package is made known as an installer would",
    "migpool conformance my-device": "a minute of checks; tests/conformance has such a package checked under one model",
    "migpool vmsd diff --qemu": "needs two QEMUs: tests/streams/test_compare_programs.py has programs in their place",
    "migpool lab sweep sweep.toml --cluster": "needs a Dask cluster: make cluster has one",
    "migpool compare many --hosts": "needs a Dask cluster: make cluster has one",
    "migpool lab run": "takes from a minute to forty on a quiet machine; tests/experiments runs smaller experiments",
}
STREAM: Final = ROOT / "tests" / "data" / "qemu-streams" / "q35-rich.mig"
TRACES: Final = ROOT / "tests" / "data" / "qemu-traces" / "e1000e-3-qemu-11"
TINY: Final = 'plugin = "vfio"\noptions = {profile = "tiny"}'
GUEST: Final = 'plugin = "guest"\noptions = {memory = "16MiB", rate = 50}'
FEW: Final = '[channels]\ncount = 2\n[compare]\nmodels = ["pool", "inline"]\nrepeats = 1\n[limits]\npeer = 20'


def block(word: str) -> str:
    (found,) = [code for code in BLOCKS if word in code]
    return str(found)


def lines(text: str) -> list[list[list[str]]]:
    """The commands of a console block, as words; a line may have several, joined by ``&&``."""
    printed = [line.removeprefix("$ ") for line in text.splitlines()]
    return [
        [shlex.split(command, comments=True) for command in re.sub(r"\s#.*", "", line).split("&&")] for line in printed
    ]


def reason(words: list[str]) -> str:
    """Why a command is not run; empty if it is."""
    return next((why for begin, why in NOT_RUN.items() if words[: len(begin.split())] == begin.split()), "")


class World:
    """A directory with what the README's commands name; and whoever is at the other end of those that need one."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self._path, self._patch, self._stack = path, patch, stack
        self._source, self._destination = free_ports(2)
        self._waiting: list[Command] = []
        self._environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        patch.chdir(path)
        for name, devices in (("small", [TINY]), ("default", [f"{TINY}\ncount = 2"]), ("guest", [GUEST, TINY])):
            scenario_file(path / name, devices, FEW)
        for name in ("vm.mig", "old.mig", "new.mig"):
            shutil.copy(STREAM, path / name)
        (path / "guest.save").write_bytes(image(0, STREAM.read_bytes()))
        for name in ("source.log", "destination.log"):
            (path / name).write_bytes(lzma.decompress((TRACES / f"{name}.xz").read_bytes()))
        for name in ("docs/results/2026-11-26", "results"):
            shutil.copytree(ROOT / "docs" / "results" / "2026-11-26", path / name)
        (path / "my.toml").write_text(block("# my.toml"))
        (path / "sweep.toml").write_text(block("# sweep.toml"))
        (path / "my_package.py").write_text(block("class Clock"))
        points = tomllib.loads(block("# pyproject.toml"))["project"]["entry-points"]["migpool.devices"]
        lines = [f"{name} = {target}" for name, target in points.items()]
        announced(path, "my-package", "\n".join(["[migpool.devices]", *lines, ""]))
        self._install(path)

    def _install(self, path: Path) -> None:
        """Have the packages in a directory be there, in this process and in those that commands start."""
        self._patch.syspath_prepend(path)
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), self._environment["PYTHONPATH"]]))

    def type(self, words: list[str]) -> None:
        """Type a command as it is printed, and see it end well."""
        if words[:2] == ["pip", "install"]:
            package = self._path / words[-1].removesuffix("[test]")
            announce(package)
            self._install(package / "src")
        if reason(words):
            return
        there = self._source if self._waiting else self._destination
        here_and_there = {f"tcp:{host}:4444": f"tcp:{host}:{self._source}" for host in ("0.0.0.0", "127.0.0.1")}
        where = here_and_there | {"tcp:HOST:4444": f"tcp:127.0.0.1:{there}", "HOST": "127.0.0.1"}
        program, *arguments = [where.get(word, word) for word in words]
        assert program == "migpool"
        tls = ["--tls", "pki"] if "--tls" in words else []
        if tls and not (self._path / "pki").exists():
            assert here("tls", "new", "pki", "--name", "127.0.0.1").code == 0
        if arguments[0] in ("record", "replay"):
            self._wait("receive", "small", "--listen", f"tcp:127.0.0.1:{self._destination}")
        if arguments[0] == "observe":
            self._stack.enter_context(fake_pair(*(self._path / arguments[at] for at in (2, 4))))
        if arguments[:3] == ["send", "stored.mig", "--to"]:
            store = ["--store", "another.mig", "--channels", arguments[-1]]
            self._wait("receive", *store, "--listen", f"tcp:127.0.0.1:{self._destination}")
        if arguments[0] in ("record", "receive"):
            self._wait(*arguments)
            if arguments[0] == "receive" and "--store" not in arguments:
                return  # the README sends to it itself
            what = "small" if arguments[0] == "record" else "vm.mig"
            arguments = ["send", what, "--to", f"tcp:127.0.0.1:{self._source}", *tls]
        # A sweep's own processes have a helper that stays for as long as the process that started them.
        type_it = migpool if arguments[:2] == ["lab", "sweep"] else here
        ended = type_it(*arguments, extra=self._environment)
        assert ended.code == 0, f"{words}: {ended.err}"
        while self._waiting:
            ended = self._waiting.pop().wait()
            assert ended.code == 0, f"{words}: {ended.err}"

    def _wait(self, *arguments: str) -> None:
        """Start a command that waits for a peer."""
        command = self._stack.enter_context(started(*arguments, extra=self._environment))
        command.complained_of("listening on")
        self._waiting.append(command)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, monkeypatch, stack)


@pytest.mark.parametrize("text", CONSOLE, ids=lambda text: " ".join(lines(text)[0][0][:3]))
def test_a_console_block_runs_as_printed(text: str, world: World) -> None:
    if "guest" in text and WITHOUT_KVM and WITHOUT_UNICORN:
        pytest.skip(f"{WITHOUT_KVM}; {WITHOUT_UNICORN}")
    for commands_of_line in lines(text):
        for words in commands_of_line:
            if words[1] == "report":
                shutil.copy("result.json", "other.json")
            world.type(words)


@pytest.mark.parametrize("begin", NOT_RUN)
def test_what_is_not_run_stands_in_the_readme_with_options_that_there_are(begin: str) -> None:
    known = {name: option_words(function) for name, function in commands()}
    found = [words for text in CONSOLE for line in lines(text) for words in line if reason(words) == NOT_RUN[begin]]
    assert found, "no such command is printed any more: remove its reason"
    for words in found:
        if words[0] == "migpool":
            name = words[1] if words[1] in known else " ".join(words[1:3])
            assert {word for word in words if word.startswith("-")} <= known[name]
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_plugin_migrates(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(block("class Clock"), "README.md", "exec"), names)
    make = names["devices"]
    assert callable(make)
    source, destination = make(DeviceContext("source")), make(DeviceContext("destination"))
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == ""
    assert destination[0].ticks == 1234


def test_the_pool_says_full() -> None:
    calls: list[object] = []
    code = block("WorkerPool")
    exec(compile(code, "README.md", "exec"), {"work": calls.append, "item": 7})
    assert calls == [7, 7, 7]
    assert "PoolFull" in code
    with WorkerPool(1, max_pending=0) as pool:
        gate = threading.Event()
        pool.submit(gate.wait, 10)
        with pytest.raises(PoolFull):
            pool.try_submit(gate.wait, 10)
        gate.set()


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text()))
def test_what_it_points_to_is_there(path: str) -> None:
    assert (ROOT / path).exists()
