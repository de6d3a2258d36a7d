"""Records the trace logs of the gallery anew: ``python -m tests.qemu.record_traces [NAME...]``, as root or not.

Two QEMUs on this host migrate each machine a few times; the logs of the shortest downtime are kept, since a busy host
only lengthens it, with the lines of those events that ``migpool explain`` reads, packed by xz. It needs a QEMU, as
``tests/qemu/setup`` brings it, and a quiet machine.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.lines import Counts, read_lines
from migpool.lab.qemu.tracepoints import FORMS
from migpool.lab.qemu.tracing import ALL
from tests.qemu.qemu_guest import set_up
from tests.qemu.qemuprocess import LIMIT, Json, QemuProcess, WaitedTooLong, qemu_here

KEPT: Final = Path(__file__).parents[1] / "data" / "qemu-traces"
TRIES: Final = 4
PLAIN: Final = ("-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none")
WRITES: Final = bytes.fromhex(
    "fa31c08ed80f0116407c"  # cli; no segments; the descriptors at 0x7c40
    "0f20c00c010f22c0b808008ed8"  # protected mode, with 4 GiB of data
    "66bb00004000"  # from 4 MiB on ...
    "67fe036681c3001000006681fb0000400c72ed"  # ... a byte of each page is written anew, up to 196 MiB
    "ba0204b001eeebdf"  # say so on the firmware's port, and again
)
DESCRIPTORS: Final = bytes.fromhex("0f00487c0000" + "0000" + "00" * 8 + "ffff00000092cf00")
WRITTEN: Final = b"\x01"
NOTHING: Final = b"No bootable device"
MACHINES: Final[dict[str, tuple[str, ...]]] = {
    "idle": (*PLAIN, "-device", "virtio-net-pci,romfile=", "-device", "qemu-xhci"),
    "e1000e-16-views": (*PLAIN, *("-device", "e1000e,romfile=") * 16),
    "busy": (*PLAIN, "-m", "256", "-drive", "if=none,id=disk,format=raw,file={disk}", "-device", "ide-hd,drive=disk"),
}
PARAMETERS: Final[dict[str, dict[str, Json]]] = {"busy": {"max-bandwidth": 400 << 20, "downtime-limit": 700}}


def main(names: Sequence[str]) -> None:
    for name in names or MACHINES:
        with tempfile.TemporaryDirectory() as directory:
            tried = []
            for number in range(TRIES):
                (where := Path(directory, str(number))).mkdir()
                logs = recorded(name, where)
                tried.append((explain(*logs).result.runs[0].downtime_ms or 0.0, logs))
                sys.stderr.write(f"{name}: {tried[-1][0]:.1f} ms\n")
            for log in min(tried)[1]:
                (KEPT / name).mkdir(exist_ok=True)
                (KEPT / name / f"{log.name}.xz").write_bytes(lzma.compress(kept(log), preset=9))


def recorded(name: str, directory: Path) -> tuple[Path, Path]:
    """Migrate once; the logs of both sides."""
    qemu = qemu_here()
    assert qemu is not None, "no QEMU here"
    disk = directory / "disk"
    disk.write_bytes((WRITES.ljust(0x40, b"\0") + DESCRIPTORS).ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    command = [*qemu.command, *(word.format(disk=disk) for word in MACHINES[name]), "-msg", "timestamp=on"]
    logs = directory / "source.log", directory / "destination.log"
    with ExitStack() as stack:
        sides = [
            stack.enter_context(QemuProcess([*command, *firmware(log), "-D", str(log), *more], log.with_suffix(".err")))
            for log, more in zip(logs, ((), ("-incoming", "defer")), strict=True)
        ]
        for side in sides:
            for pattern in ALL:
                if pattern != "flatview_new" or name.endswith("-views"):
                    tracepoint: dict[str, Json] = {"name": pattern, "enable": True, "ignore-unavailable": True}
                    side.execute("trace-event-set-state", tracepoint)
            set_up(side, channels=2, capabilities=["return-path"], parameters=PARAMETERS.get(name))
        source, destination = sides
        wait_for(directory / "source.firmware", WRITTEN if name == "busy" else NOTHING)
        address = f"unix:{directory}/migration"
        destination.execute("migrate-incoming", {"uri": address})
        source.execute("migrate", {"uri": address})
        assert source.wait_for_status("completed", "failed") == "completed"
        assert destination.wait_for_status("completed", "failed") == "completed"
    return logs


def firmware(log: Path) -> list[str]:
    """A port on which the firmware says what it does."""
    path = log.with_suffix(".firmware")
    return ["-chardev", f"file,id=said,path={path}", "-device", "isa-debugcon,iobase=0x402,chardev=said"]


def wait_for(said: Path, what: bytes) -> None:
    """Wait until the firmware has found nothing to boot from, or what it has booted has written its memory once."""
    deadline = time.monotonic() + LIMIT
    while what not in (said.read_bytes() if said.exists() else b""):
        if time.monotonic() > deadline:
            raise WaitedTooLong(f"{what!r} was not said within {LIMIT:g} s")
        time.sleep(0.1)


def kept(log: Path) -> bytes:
    """The lines of the events that are read."""
    known = {line.event for line in read_lines(log, frozenset(FORMS), Counts())}
    lines = log.read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if any(f"{event} ".encode() in line for event in known))


if __name__ == "__main__":
    main(sys.argv[1:])
