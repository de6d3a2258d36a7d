"""QEMU's vfio-user-pci attaches a device of ours: the two commands of the documentation, as they stand there."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import pytest

from migpool_plugins.vmsd.capture import sections
from tests.support import ROOT
from tests.support.commandline import Command, here, scenario_file, started
from tests.support.vfio.vfiouser_rig import RawClient

LIMIT: Final = 60.0
OLDEST: Final = 11
IN_SID: Final = ROOT / "build" / "debian" / "in-sid"
PROMPT: Final = b"(qemu) "

pytestmark = pytest.mark.qemu


def documented() -> tuple[list[str], list[str]]:
    """The words of the two commands, without the prompts."""
    text = (ROOT / "docs" / "vfio-user.md").read_text()
    block = text.partition("## A PCI device for QEMU")[2].partition("```console\n")[2].partition("```")[0]
    serve, qemu = re.findall(r"^\$ (.*)$", block.replace("\\\n", ""), re.MULTILINE)
    return shlex.split(serve), shlex.split(qemu)


class Monitor:
    """A QEMU whose monitor is its standard input and output; leaving the context kills it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )

    def __enter__(self) -> Self:
        self._until_prompt()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=LIMIT)

    def _until_prompt(self) -> str:
        assert self.process.stdout is not None
        said, deadline = b"", time.monotonic() + LIMIT
        while not said.endswith(PROMPT):
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            part = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            assert part, f"QEMU said no more than {said!r}"
            said += part
        return said.decode()

    def ask(self, command: str) -> str:
        """What a command prints, without its own echo."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        return self._until_prompt().partition("\n")[2]

    def placed(self) -> tuple[str, int]:
        """What the monitor says of PCI devices once firmware has placed our BAR; and where that is."""
        deadline = time.monotonic() + LIMIT
        while True:
            said = self.ask("info pci").replace("\r", "")
            ours = said.partition("1af4:10f0\n")[2]
            found = re.match(r" *PCI subsystem 1af4:10f0\n *BAR0: 32 bit memory at 0x([0-9a-f]{8}) ", ours)
            if found:
                return said, int(found[1], 16)
            assert time.monotonic() < deadline, f"the BAR was not placed: {said}"
            time.sleep(0.2)

    def words(self, at: int, count: int) -> list[int]:
        """Words of the guest's physical memory."""
        return [int(word, 16) for word in re.findall(r" 0x([0-9a-f]{8})\b", self.ask(f"xp /{count}wx {at:#x}"))]

    def quit(self) -> tuple[int, str]:
        """End it; returns its exit code and what it said on stderr."""
        _, complained = self.process.communicate(b"quit\n", timeout=LIMIT)
        return self.process.returncode, complained.decode()


@pytest.fixture
def program() -> str:
    """The command that runs QEMU in its chroot."""
    said = ""
    if IN_SID.exists():
        asked = [str(IN_SID), "qemu-system-x86_64", "--version"]
        said = subprocess.run(asked, capture_output=True, text=True, timeout=LIMIT, check=False).stdout
    found = re.match(r"QEMU emulator version (\d+)\.", said)
    if not found or int(found[1]) < OLDEST:
        reason = f"no QEMU {OLDEST} in a chroot: tests/debian/chroot sid qemu-system-x86 makes it, as root"
        if os.environ.get("MIGPOOL_QEMU_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(IN_SID)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The documented server, in a directory in which the documented QEMU finds it."""
    monkeypatch.chdir(tmp_path)
    program, *arguments = documented()[0]
    assert program == "migpool"
    with started(*arguments) as server:
        server.printed_of("listens at nic")
        yield server


def test_qemu_attaches_the_device_and_another_client_migrates_it_meanwhile(program: str, served: Command) -> None:
    with Monitor([program, *documented()[1]]) as qemu:
        said, bar = qemu.placed()
        assert "Class 2176: PCI device 1af4:10f0" in said
        magic, state, low, high = qemu.words(bar, 4)
        assert (magic.to_bytes(4, "little"), state) == (b"migp", 2)
        client = RawClient("nic")
        assert client.go("STOP_COPY") == 0
        assert qemu.words(bar + 4, 1) == [3]
        size = low | high << 32
        assert client.feature(1 << 16 | 9)[1] == size.to_bytes(8, "little")
        assert len(client.read(4096)[1]) == 4096
        assert client.go("RUNNING") == 0
        client.close()
        with started("vfio", "serve", "network-function", "--socket", "other"):
            table = (
                'plugin = "vfio"\noptions = {backend = "vfio-user", socket = {source = "nic", destination = "other"}}'
            )
            moved = here("run", scenario_file(Path("beside.toml"), [table]))
        assert moved.code == 0, moved.err
        assert qemu.words(bar + 4, 1) == [2]
        qemu.ask("system_reset")
        qemu.placed()
        assert qemu.quit() == (0, "")
    assert served.complained() == ""


def test_qemu_migrates_the_machine_and_nothing_of_the_device(program: str, served: Command) -> None:
    """What the documentation warns of; when this fails, QEMU has learned it, and the page is to be changed."""
    with Monitor([program, *documented()[1]]) as qemu:
        qemu.placed()
        qemu.ask("stop")
        qemu.ask("migrate file:stream")
        assert "completed" in qemu.ask("info migrate")
        assert qemu.quit() == (0, "")
    assert served.complained() == ""
    stream = Path("stream").read_bytes()
    assert "0000:00:1f.2/ich9_ahci" in {each.name for each in sections(stream, "stream")}
    assert b"0000:00:01.0" not in stream
    assert b"vfio" not in stream
