"""Console blocks as a reader types them: what is typed, what is shown beneath, and a directory in which it works."""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import socket
import subprocess
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from migpool.lab.run.link.process import refusal
from tests.docs.blocks import block
from tests.support import LONG, ROOT
from tests.support.commandline import Command, announced, here, migpool, scenario_file, started
from tests.support.monitors import fake_pair
from tests.support.new_package import announce
from tests.support.save_image import image

STREAM: Final = ROOT / "tests" / "data" / "qemu-streams" / "q35-rich.mig"
TRACES: Final = ROOT / "tests" / "data" / "qemu-traces"
TINY: Final = 'plugin = "vfio"\noptions = {profile = "tiny"}'
GUEST: Final = 'plugin = "guest"\noptions = {memory = "16MiB", rate = 50}'
COMPARED: Final = '[compare]\nmodels = ["pool", "inline"]\nrepeats = 1'
"""What is compared where the reader does not say; what was measured is, by all models, in the long profile alone."""
FEW: Final = f"[channels]\ncount = 2\n{COMPARED}\n[limits]\npeer = 20"
PROMPTS: Final = ("$ ", "(qemu) ")


@dataclass
class Typed:
    """A line that is typed.

    Arguments:
        prompt: ``$`` or ``(qemu)``.
        commands: the commands, as words; a line may have several, joined by ``&&``.
        shown: the lines that stand beneath it.
    """

    prompt: str
    commands: list[list[str]]
    shown: list[str] = field(default_factory=list)


def typed(text: str) -> list[Typed]:
    """What is typed in a console block."""
    found: list[Typed] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        prompt = next((prompt for prompt in PROMPTS if line.startswith(prompt)), "")
        if not prompt:
            assert found, f"{line}: shown before anything was typed"
            found[-1].shown += [line] * bool(line.strip())
            continue
        words = line.removeprefix(prompt)
        parts = re.sub(r"\s#.*", "", words).split(" && ") if prompt == "$ " else [words]
        found.append(Typed(prompt.strip(), [shlex.split(part, comments=True) for part in parts]))
    return found


class World:
    """A directory with what a page's commands name; and whoever is at the other end of those that need one.

    Small machines stand in it as files called ``default``, ``guest`` and ``small``, which go before the built-in
    scenarios of these names; ``HOST`` is this one, and the port one that is free.
    """

    def __init__(self, page: str, path: Path, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self._path, self._patch, self._stack = path, patch, stack
        self._source, self._destination = free_ports(2)
        self._waiting: list[Command] = []
        self._environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        patch.chdir(path)
        (path / "tests").symlink_to(ROOT / "tests")
        for name, devices in (("small", [TINY]), ("default", [f"{TINY}\ncount = 2"]), ("guest", [GUEST, TINY])):
            scenario_file(path / name, devices, FEW)
        for name in ("vm.mig", "old.mig", "new.mig"):
            shutil.copy(STREAM, path / name)
        (path / "guest.save").write_bytes(image(0, STREAM.read_bytes()))
        self._logs(page)
        for name in ("docs/results/2026-11-26", "results"):
            shutil.copytree(ROOT / "docs" / "results" / "2026-11-26", path / name)
        plugins = "docs/device-plugins.md"
        (path / "my.toml").write_text(block(plugins, "toml", "# my.toml"))
        (path / "my_package.py").write_text(block(plugins, "python"))
        (path / "sweep.toml").write_text(block("docs/sweeps.md", "toml"))
        shutil.copytree(ROOT / "docs" / "examples", path / "docs" / "examples")
        scenario_file(path / "linked.toml", [TINY], f"{block('docs/links.md', 'toml')}\n{FEW}")
        points = tomllib.loads(block(plugins, "toml", "# pyproject.toml"))["project"]["entry-points"]
        lines = [f"{name} = {target}" for name, target in points["migpool.devices"].items()]
        announced(path, "my-package", "\n".join(["[migpool.devices]", *lines, ""]))
        self._install(path)

    def _logs(self, page: str) -> None:
        """The logs of the migration that a page tells of."""
        plain = "vfio-2-off" if page == "docs/explain.md" else "e1000e-3-qemu-11"
        for side in ("source", "destination"):
            shutil.copy(TRACES / "e1000e-16" / f"{side}.log.xz", self._path)
            text = lzma.decompress((TRACES / plain / f"{side}.log.xz").read_bytes())
            (self._path / f"{side}.log").write_bytes(text)
            (self._path / {"source": "NAME.trace", "destination": "HOST-NAME.trace"}[side]).write_bytes(text)

    def _install(self, path: Path) -> None:
        """Have the packages in a directory be there, in this process and in those that commands start."""
        self._patch.syspath_prepend(path)
        self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), self._environment["PYTHONPATH"]]))

    def install(self, words: list[str]) -> None:
        """``pip install`` of a package that stands here, as an installer would leave it."""
        package = self._path / words[-1].removesuffix("[test]")
        if package.is_dir() and "-e" in words:
            announce(package)
            self._install(package / "src")

    def type(self, words: list[str]) -> str:
        """Type a command as it is printed, see it end well, and return what it prints."""
        if words[0] == "xz":
            subprocess.run(words, check=True, timeout=20)
            return ""
        if words[:2] == ["sudo", ".venv/bin/migpool"]:
            if reason := refusal():
                pytest.skip(reason)
            words = ["migpool", *words[2:]]
        program, *arguments = [self.where(word) for word in words]
        assert program == "migpool", f"{program}: who is to type that?"
        tls = ["--tls", "pki"] if "--tls" in words else []
        if tls and not (self._path / "pki").exists():
            assert here("tls", "new", "pki", "--name", "127.0.0.1").code == 0
        if arguments[:2] == ["compare", "mine.toml"] and not LONG:
            with (self._path / "mine.toml").open("a") as scenario:  # what the command before it has written
                scenario.write(f"\n{COMPARED}\n")
        if arguments[:2] == ["vfio", "serve"]:
            return self._serve(arguments)
        if arguments[0] in ("record", "replay"):
            self._wait("receive", "small", "--listen", f"tcp:127.0.0.1:{self._destination}")
        if arguments[0] == "observe":
            return self._observe(arguments)
        if arguments[:3] == ["send", "stored.mig", "--to"]:
            store = ["--store", "another.mig", "--channels", arguments[-1]]
            self._wait("receive", *store, "--listen", f"tcp:127.0.0.1:{self._destination}")
        if arguments[0] in ("record", "receive"):
            if "--store" in arguments:
                Path(arguments[arguments.index("--store") + 1]).unlink(missing_ok=True)
            self._wait(*arguments)
            if arguments[0] == "receive" and "--store" not in arguments:
                return ""  # the page sends to it itself
            what = "small" if arguments[0] == "record" else str(STREAM)
            listens = arguments[arguments.index("--listen") + 1]
            channels = arguments[arguments.index("--channels") :][:2] if "--channels" in arguments else []
            arguments = ["send", what, "--to", listens.replace("0.0.0.0", "127.0.0.1"), *channels, *tls]
        # A sweep's own processes have a helper that stays for as long as the process that started them.
        type_it = migpool if arguments[:2] == ["lab", "sweep"] else here
        ended = type_it(*arguments, extra=self._environment)
        assert ended.code == 0, f"{words}: {ended.err}"
        while self._waiting:
            waited = self._waiting.pop().wait()
            assert waited.code == 0, f"{words}: {waited.err}"
        return ended.out

    def where(self, word: str) -> str:
        """Host, port and directory of the machine on which it is typed."""
        there = self._source if self._waiting else self._destination
        ports = {f"tcp:{host}:4444": f"tcp:{host}:{self._source}" for host in ("0.0.0.0", "127.0.0.1")}
        names = {f"tcp:{host}:4444": f"tcp:127.0.0.1:{there}" for host in ("HOST", "dest.example.org")}
        hosts = dict.fromkeys(("HOST", "dest.example.org"), "127.0.0.1")
        outside = re.sub(r"(?<![\w/])/(?:tmp|run)/", f"{self._path}/", word)
        return {**ports, **names, **hosts}.get(word, outside)

    def _serve(self, arguments: list[str]) -> str:
        """Servers until the block is over; what they say once all listen."""
        count = int(arguments[arguments.index("-n") + 1]) if "-n" in arguments else 1
        server = self._stack.enter_context(started(*arguments, extra=self._environment))
        server.printed_of("listens at", times=count)
        return server.printed()

    def _observe(self, arguments: list[str]) -> str:
        """Two monitors; and somebody who starts the migration, if the command does not."""
        with (
            fake_pair(*(self._path / arguments[at] for at in (2, 4))) as (source, _),
            started(*arguments, extra=self._environment) as command,
        ):
            if "--" not in arguments:
                command.complained_of("waiting for the migration to begin")
                source.migrate()
            ended = command.wait()
        for at in (2, 4):
            (self._path / arguments[at]).unlink()
        assert ended.code == 0, f"{arguments}: {ended.err}"
        return ended.out

    def _wait(self, *arguments: str) -> None:
        """Start a command that waits for a peer."""
        command = self._stack.enter_context(started(*arguments, extra=self._environment))
        command.complained_of("listening on")
        self._waiting.append(command)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
