"""Tracepoints of a running QEMU, on for a while: what it logs of them in a file that can be read here."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from migpool.errors import MigpoolError, UsageError
from migpool.lab.qemu.lines import has_time
from migpool.lab.qemu.monitor import Monitor, Refused

LIGHT: Final = (
    "vmstate_downtime*",
    "loadvm_process_command*",
    "migration_bitmap_sync*",
    "source_return_path_thread_*",
    "migrate_send_rp_message",
)
"""A few lines, and the two clocks."""
ALL: Final = (*LIGHT, "qemu_loadvm*", "multifd_send_*", "multifd_recv_*", "vfio_*", "flatview_new")

_PROBE: Final = "handle_qmp_command"
_COMES: Final = 3.0
"""Seconds within which the line of an event is in the log."""
_TURN: Final = 0.05


@dataclass(frozen=True, slots=True)
class Log:
    """Where a QEMU logs to.

    Arguments:
        path: the file.
        begin: how long it was before, in bytes.
    """

    path: Path
    begin: int

    def copied(self, to: Path) -> Path:
        """What has been written since, as a file of its own, unless it is one."""
        if not self.begin:
            return self.path
        try:
            with self.path.open("rb") as source, to.open("wb") as target:
                # A log that is shorter than before was begun anew.
                source.seek(self.begin if self.path.stat().st_size >= self.begin else 0)
                shutil.copyfileobj(source, target)
        except OSError as error:
            raise MigpoolError(f"{self.path} cannot be copied to {to}: {error.strerror or error}") from None
        return to


@asynccontextmanager
async def traced(monitor: Monitor, tracepoints: Sequence[str], log: Path | None, directory: Path) -> AsyncIterator[Log]:
    """Have tracepoints on; afterwards, whatever happens, those are on that were before.

    Arguments:
        tracepoints: names, or patterns.
        log: where this QEMU logs to (``-D``); ``None`` has it log to a file of ``directory``, from now on.

    Raises:
        UsageError: the log cannot be read here, has no times, or QEMU has no trace backend that logs.
    """
    side = monitor.side
    (checkpoint,) = await monitor.rows("trace-event-get-state", {"name": "vmstate_downtime_checkpoint"}) or [{}]
    if checkpoint.get("state") not in ("enabled", "disabled"):
        raise UsageError(f"the {side}'s QEMU was built without tracepoints: it needs the trace backend log")
    before = {
        str(row["name"])
        for name in (*tracepoints, _PROBE)
        for row in await _rows(monitor, name)
        if row["state"] == "enabled"
    }
    where = await _where(monitor, log, directory)
    try:
        await _probe(monitor, where)
        await _set(monitor, _PROBE, on=_PROBE in before)
        for name in tracepoints:
            await _set(monitor, name, on=True)
        yield where
    finally:
        with suppress(MigpoolError):  # a QEMU that has ended has none on
            for name in (*tracepoints, _PROBE):
                await _set(monitor, name, on=False)
            for name in sorted(before):
                await _set(monitor, name, on=True)


async def _rows(monitor: Monitor, name: str) -> list[dict[str, object]]:
    try:
        return [dict(row) for row in await monitor.rows("trace-event-get-state", {"name": name})]
    except Refused:  # this version has no such tracepoint
        return []


async def _set(monitor: Monitor, name: str, *, on: bool) -> None:
    with suppress(Refused):
        await monitor.execute("trace-event-set-state", {"name": name, "enable": on, "ignore-unavailable": True})


async def _where(monitor: Monitor, log: Path | None, directory: Path) -> Log:
    if log is not None:
        try:
            return Log(log, log.stat().st_size)
        except OSError as error:
            raise UsageError(f"{log} cannot be read: {error.strerror or error}") from None
    path = directory.resolve() / f"{monitor.side}.log"
    if "%" in str(path) or not str(path).isprintable():
        raise UsageError(f"{path}: QEMU takes no log file of this name; choose another directory")
    quoted = str(path).replace("\\", "\\\\").replace('"', '\\"')
    if said := await monitor.human(f'logfile "{quoted}"'):
        raise UsageError(
            f"the {monitor.side}'s QEMU cannot log to {path} ({' '.join(said.split())}): choose a directory that its "
            f"user may write to with --keep, or start it with -D and give --{monitor.side}-log"
        )
    return Log(path, 0)


async def _probe(monitor: Monitor, log: Log) -> None:
    """See that an event comes to the log, with a time."""
    await _set(monitor, _PROBE, on=True)
    await monitor.execute("query-status")
    for _ in range(int(_COMES / _TURN)):
        if lines := [line for line in _since(log) if _PROBE.encode() in line]:
            break
        await asyncio.sleep(_TURN)
    else:
        raise UsageError(
            f"what the {monitor.side}'s QEMU traces does not come to {log.path}: it was built without the trace "
            f"backend log, or it logs to another file, or on another host; give its -D file with --{monitor.side}-log"
        )
    if not has_time(lines[0]):
        raise UsageError(f"the {monitor.side}'s QEMU logs without times: start it with -msg timestamp=on")


def _since(log: Log) -> list[bytes]:
    """The whole lines that were written since, the first of them."""
    try:
        with log.path.open("rb") as file:
            file.seek(log.begin)
            return file.read(1 << 20).splitlines(keepends=True)
    except OSError:
        return []
