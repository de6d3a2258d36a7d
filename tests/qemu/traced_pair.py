"""Two real QEMUs on this host, of which one migrates to the other with tracepoints on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from migpool.lab.qemu.tracing import ALL
from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import LIMIT, Json, QemuProcess, WaitedTooLong, qemu_here

TRACED: Final = tuple(name for name in ALL if name != "flatview_new")
"""All but that of flat views, of which a load says hundreds."""
PLAIN: Final = ("-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none")
WRITES: Final = bytes.fromhex(
    "fa31c08ed80f0116407c"  # cli; no segments; the descriptors at 0x7c40
    "0f20c00c010f22c0b808008ed8"  # protected mode, with 4 GiB of data
    "66bb00004000"  # from 4 MiB on ...
    "67fe036681c3001000006681fb0000400c72ed"  # ... a byte of each page is written anew, up to 196 MiB
    "ba0204b001eeebdf"  # say so on the firmware's port, and again
)
DESCRIPTORS: Final = bytes.fromhex("0f00487c0000" + "0000" + "00" * 8 + "ffff00000092cf00")
DISK: Final = (WRITES.ljust(0x40, b"\0") + DESCRIPTORS).ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20)
BUSY: Final = (*PLAIN, "-m", "256", "-drive", "if=none,id=disk,format=raw,file={disk}", "-device", "ide-hd,drive=disk")
"""What boots the program that writes 192 MiB again and again."""
SAYS: Final = ("-device", "isa-debugcon,iobase=0x402,chardev=said")
WRITTEN: Final = b"\x01"
NOTHING: Final = b"No bootable device"


@dataclass(frozen=True, slots=True)
class Pair:
    """How it is done.

    Arguments:
        machine: the machine's options; ``{disk}`` is a disk with a program that writes memory.
        channels: of multifd; 0 for none.
        tracepoints: names, or patterns.
        parameters: of the source's migration.
        until: what the firmware must have said before; empty to wait for nothing.
        postcopy: the memory goes on for a while after the machine runs.
    """

    machine: Sequence[str] = PLAIN
    channels: int = 0
    tracepoints: Sequence[str] = TRACED
    parameters: dict[str, Json] = field(default_factory=dict)
    until: bytes = b""
    postcopy: bool = False

    def migrate(self, directory: Path) -> tuple[Path, Path, dict[str, Json]]:
        """Migrate once; the logs of both sides, and what the source then says of it."""
        qemu = qemu_here()
        assert qemu is not None, "no QEMU here"
        (disk := directory / "disk").write_bytes(DISK)
        logs = directory / "source.log", directory / "destination.log"
        command = [*qemu.command, *(word.format(disk=disk) for word in self.machine), "-msg", "timestamp=on"]
        with ExitStack() as stack:
            sides = []
            for log, more in zip(logs, ((), ("-incoming", "defer")), strict=True):
                said = ["-chardev", f"file,id=said,path={log.with_suffix('.firmware')}", *SAYS] if self.until else []
                words = [*command, *said, "-D", str(log), *more]
                sides.append(stack.enter_context(QemuProcess(words, log.with_suffix(".err"))))
            for side in sides:
                for name in self.tracepoints:
                    side.execute("trace-event-set-state", {"name": name, "enable": True, "ignore-unavailable": True})
                capabilities = ["return-path", *["postcopy-ram"] * self.postcopy]
                set_up(side, channels=self.channels, capabilities=capabilities, parameters=self.parameters)
            source, destination = sides
            if self.until:
                _wait_for(directory / "source.firmware", self.until)
            address = f"unix:{directory}/migration"
            destination.execute("migrate-incoming", {"uri": address})
            source.execute("migrate", {"uri": address})
            if self.postcopy:
                assert source.wait_for_status("active", "failed") == "active"
                source.execute("migrate-start-postcopy")
                assert source.wait_for_status("postcopy-active", "failed") == "postcopy-active"
                source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
            for side in sides:
                assert side.wait_for_status("completed", "failed") == "completed", side.reason()
            return *logs, source.migration()


def _wait_for(said: Path, what: bytes) -> None:
    """Wait until the firmware has found nothing to boot from, or what it has booted has written its memory once."""
    deadline = time.monotonic() + LIMIT
    while what not in (said.read_bytes() if said.exists() else b""):
        if time.monotonic() > deadline:
            raise WaitedTooLong(f"{what!r} was not said within {LIMIT:g} s")
        time.sleep(0.1)
