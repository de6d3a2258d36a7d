"""Records the trace logs of the gallery anew: ``python -m tests.qemu.record_traces [NAME...]``, as root or not.

Two QEMUs on this host migrate each machine a few times; the logs of the shortest downtime are kept, since a busy host
only lengthens it, with the lines of those events that ``migpool explain`` reads, packed by xz. It needs what
``tests/qemu/setup`` brings, and a quiet machine.
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
from migpool.lab.qemu.log import FORMS
from migpool.lab.qemu.tracing import ALL
from tests.qemu.qemu_guest import FILES, KERNEL, set_up
from tests.qemu.qemuprocess import LIMIT, Json, QemuProcess, WaitedTooLong, qemu_here

KEPT: Final = Path(__file__).parents[1] / "data" / "qemu-traces"
TRIES: Final = 4
PLAIN: Final = ("-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none")
WRITES: Final = (
    "/bin/busybox mkdir /d; /bin/busybox mount -t devtmpfs dev /dev; /bin/busybox mount -t tmpfs d /d; n=0; "
    "while :; do /bin/busybox yes $n | /bin/busybox head -c 12000000 >/d/x; n=$((n + 1)); "
    "echo tick $n >/dev/console; done"
)
MACHINES: Final[dict[str, tuple[str, ...]]] = {
    "idle": (*PLAIN, "-device", "virtio-net-pci,romfile=", "-device", "qemu-xhci"),
    "e1000e-16-views": (*PLAIN, *("-device", "e1000e,romfile=") * 16),
    "busy": (
        *(
            "-accel",
            "kvm",
            "-accel",
            "tcg",
            "-machine",
            "q35",
            "-m",
            "128",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ),
        *("-kernel", str(FILES / "vmlinuz"), "-initrd", str(FILES / "initramfs")),
        *("-append", f'{KERNEL} rdinit=/bin/busybox -- sh -c "{WRITES}"'),
    ),
}
PARAMETERS: Final[dict[str, dict[str, Json]]] = {"busy": {"max-bandwidth": 100 << 20, "downtime-limit": 300}}


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
    command = [*qemu.command, *MACHINES[name], "-msg", "timestamp=on"]
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
        if name == "busy":
            source.wait_for_ticks(1, limit=200)
        else:
            wait_for_firmware(directory / "source.firmware")
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


def wait_for_firmware(said: Path) -> None:
    """Wait until it has set up every device, and found nothing to boot from."""
    deadline = time.monotonic() + LIMIT
    while b"No bootable device" not in (said.read_bytes() if said.exists() else b""):
        if time.monotonic() > deadline:
            raise WaitedTooLong(f"the firmware did not come to its end within {LIMIT:g} s")
        time.sleep(0.1)


def kept(log: Path) -> bytes:
    """The lines of the events that are read."""
    known = {line.event for line in read_lines(log, frozenset(FORMS), Counts())}
    lines = log.read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if any(f"{event} ".encode() in line for event in known))


if __name__ == "__main__":
    main(sys.argv[1:])
