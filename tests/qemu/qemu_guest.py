"""The guest that ticks, on sources and destinations of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.qemu.qemuprocess import Json, Qemu, QemuProcess

__all__ = ["FILES", "UUID", "Guest", "continues", "set_up"]

FILES: Final = Path(__file__).parents[2] / "build" / "qemu"
UUID: Final = "11a2b3c4-d5e6-4f70-8192-a3b4c5d6e7f8"
KERNEL: Final = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check"


@dataclass
class Guest:
    """Starts QEMUs with the same machine.

    Arguments:
        qemu: the program.
        directory: for logs.
        machine: its type.
        base: the stream file of the guest after it has booted; empty to boot it.
    """

    qemu: Qemu
    directory: Path
    machine: str
    base: Path | None = None
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def _arguments(self, incoming: str | None, uuid: str | None, machine: str) -> list[str]:
        return [
            *(*self.qemu.command, "-accel", "tcg", "-machine", machine, "-m", "128", "-nodefaults", "-display", "none"),
            *("-no-reboot", "-kernel", str(FILES / "vmlinuz"), "-initrd", str(FILES / "initramfs"), "-append", KERNEL),
            *(() if uuid is None else ("-uuid", uuid)),
            *(() if incoming is None else ("-incoming", incoming)),
        ]

    def _start(self, arguments: Sequence[str], console: bytes = b"") -> QemuProcess:
        return QemuProcess(arguments, self.directory / f"qemu-{next(self._numbers)}.log", console)

    def boot(self) -> QemuProcess:
        """A QEMU that boots the guest."""
        return self._start(self._arguments(None, None, self.machine))

    def source(self, uuid: str | None = None) -> QemuProcess:
        """A QEMU in which the guest runs on from the base; enter it, then wait for a tick."""
        return self.loading(f"file:{self.base}", uuid=uuid)

    def loading(self, uri: str, console: bytes = b"", uuid: str | None = None) -> QemuProcess:
        """A QEMU that loads the guest from somewhere."""
        return self._start(self._arguments(uri, uuid, self.machine), console)

    def destination(self, console: bytes = b"", uuid: str | None = None, machine: str = "") -> QemuProcess:
        """A QEMU that waits to be told where to listen; with another type of machine, if one is named."""
        return self._start(self._arguments("defer", uuid, machine or self.machine), console)

    @property
    def other_machine(self) -> str:
        """A type that the guest's stream does not fit."""
        return self.qemu.machine("pc-i440fx")


def continues(ticks: list[int]) -> bool:
    """Whether no tick is missing and none came twice, though the guest has moved."""
    return len(ticks) > 1 and ticks == list(range(ticks[0], ticks[0] + len(ticks)))


def set_up(
    qemu: QemuProcess, *, channels: int, capabilities: Sequence[str] = (), parameters: dict[str, Json] | None = None
) -> None:
    """Set capabilities and parameters of a migration; with channels, multifd and their number."""
    wanted = ["events", *capabilities, *(["multifd"] if channels else [])]
    qemu.execute(
        "migrate-set-capabilities",
        {"capabilities": [{"capability": capability, "state": True} for capability in wanted]},
    )
    qemu.execute(
        "migrate-set-parameters",
        {**(parameters or {}), **({"multifd-channels": channels} if channels else {})},
    )
