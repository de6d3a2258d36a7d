"""Variants that a real QEMU migrates: two processes on this host, observed as ``migpool observe`` does.

::

    [qemu]                            # instead of [scenario]: what every variant's machine has
    arguments = ["-accel", "tcg", "-machine", "q35", "-m", "64", "-nodefaults", "-display", "none"]

    [[variants]]
    name = "16 e1000e"
    [variants.qemu]
    kind = "e1000e"                   # the devices whose loads are measured, by the last part of their names
    each = "-device e1000e"           # of each; {n} is its number
    count = 16
    first = ""                        # once, before these
    starts = true                     # false: the firmware never runs, so that no BAR is mapped (-S)
    tracepoints = ["flatview_new"]    # besides those that the downtime needs

The measure of such a variant is ``load``: milliseconds that one device of the kind took to load at the destination,
the median of all of one run.

The machine has no disk: it is migrated when its firmware has set up the devices and found nothing to boot from, which
the firmware says on a port of its own. The program is ``qemu-system-x86_64``, or what the environment's ``QEMU`` names.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from migpool.errors import MigpoolError, UsageError
from migpool.lab.report.table import device_times
from migpool.lab.run.result import RunResult
from migpool.scenario.schema import Table

PROGRAM: Final = "qemu-system-x86_64"
BOOTED: Final = b"No bootable device"
STARTS: Final = 120.0
"""Seconds until the firmware must be done, and the monitors there."""
ENDS: Final = 60.0
"""Seconds within which a migration must end."""
_TURN: Final = 0.05


class MachineTable(Table):
    """``[qemu]``."""

    arguments: list[str]


class DevicesTable(Table):
    """``[variants.qemu]``."""

    kind: Annotated[str, Field(min_length=1)]
    each: str
    count: Annotated[int, Field(ge=1, le=64)] = 1
    first: str = ""
    starts: bool = True
    tracepoints: list[str] = Field(default=[])

    @property
    def arguments(self) -> list[str]:
        """What the command line has of it."""
        words = [*shlex.split(self.first)]
        for number in range(self.count):
            words += [word.replace("{n}", str(number)) for word in shlex.split(self.each)]
        return words


def program() -> list[str] | None:
    """How QEMU is started; ``None`` if there is none."""
    words = shlex.split(os.environ.get("QEMU", PROGRAM))
    return words if words and shutil.which(words[0]) else None


def migrate_qemu(machine: MachineTable, devices: DevicesTable) -> RunResult:
    """Migrate such a machine once.

    Raises:
        UsageError: there is no QEMU, it is too old, or it does not start so.
        MigpoolError: the migration did not complete.
    """
    from migpool.lab.qemu.observe import Observation, observe
    from migpool.lab.qemu.tracing import LIGHT

    qemu = program()
    if qemu is None:
        raise UsageError(f"there is no {PROGRAM} here: install QEMU 8.2 or later, or name it in the environment's QEMU")
    with tempfile.TemporaryDirectory(prefix="migpool-qemu-") as name:
        directory = Path(name)
        command = [*qemu, *machine.arguments, *devices.arguments, "-msg", "timestamp=on"]
        source = [*command, *([] if devices.starts else ["-S"])]
        with (
            _process(source, directory, "source") as ours,
            _process([*command, "-incoming", "defer"], directory, "destination") as theirs,
        ):
            _wait(directory, (ours, theirs), booted=devices.starts)
            found = asyncio.run(
                observe(
                    Observation(
                        {"source": str(directory / "source.qmp"), "destination": str(directory / "destination.qmp")},
                        directory,
                        tracepoints=(*LIGHT, *devices.tracepoints),
                        uri=f"unix:{directory}/migration",
                        settings={"return-path": "on"},
                        limit=ENDS,
                    )
                )
            )
    (run,) = found.result.runs
    return run


def loads_ms(run: RunResult, kind: str) -> list[float]:
    """What each device of a kind took to load, in the order of loading."""
    if run.analysis is None:
        return []
    from migpool.lab.qemu.whatif import kind_of

    times = device_times(run.analysis, run.devices)
    return [times[one.name].loaded for one in run.devices if kind_of(one.name) == kind]


@contextmanager
def _process(command: Sequence[str], directory: Path, side: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of the two, which is gone afterwards."""
    firmware = ["-chardev", f"file,id=firmware,path={directory}/{side}.firmware"]
    firmware += ["-device", "isa-debugcon,iobase=0x402,chardev=firmware"]
    monitor = ["-qmp", f"unix:{directory}/{side}.qmp,server=on,wait=off"]
    with (directory / f"{side}.err").open("wb") as said:
        process = subprocess.Popen([*command, *firmware, *monitor], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(directory: Path, processes: Sequence[subprocess.Popen[bytes]], *, booted: bool) -> None:
    """Wait until both monitors are there, and the source's firmware has ended.

    Raises:
        UsageError: QEMU does not start so.
        MigpoolError: the firmware did not come to its end.
    """
    deadline = time.monotonic() + STARTS
    firmware = directory / "source.firmware"
    while time.monotonic() < deadline:
        for side, process in zip(("source", "destination"), processes, strict=True):
            if process.poll() is not None:
                lines = (directory / f"{side}.err").read_text(errors="replace").splitlines()
                raise UsageError(f"the {side}'s QEMU does not start: {lines[-1] if lines else process.returncode}")
        monitors = all((directory / f"{side}.qmp").exists() for side in ("source", "destination"))
        if monitors and (not booted or (firmware.exists() and BOOTED in firmware.read_bytes())):
            return
        time.sleep(_TURN)
    raise MigpoolError(f"the machine's firmware did not come to its end within {STARTS:g} s, or says nothing of it")
