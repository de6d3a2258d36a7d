"""``migpool observe``: a migration between two running QEMUs, and where its downtime went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migpool.cli.commands.explain import show
from migpool.cli.options import (
    Debug,
    FailAbove,
    JsonFile,
    LogFormatOption,
    ReportFile,
    TraceFile,
    Verbose,
    longest_allowed,
)

if TYPE_CHECKING:
    from migpool.device import Side
    from migpool.lab.qemu.explain import Explained
    from migpool.lab.qemu.observe import Observation


def observe(
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="QMP", help="The source's monitor: a socket's path, or tcp:HOST:PORT."),
    ] = None,
    destination: Annotated[
        str | None, typer.Option("--destination", metavar="QMP", help="The destination's monitor; one of both will do.")
    ] = None,
    migrate: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- URI [NAME=VALUE]...]",
            help="Start the migration: where to, and capabilities and parameters to be set at both sides.",
            show_default=False,
        ),
    ] = None,
    source_log: Annotated[
        Path | None,
        typer.Option("--source-log", metavar="FILE", help="Where the source logs to already (-D)."),
    ] = None,
    destination_log: Annotated[
        Path | None,
        typer.Option("--destination-log", metavar="FILE", help="Where the destination logs to already (-D)."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="DIR", help="Keep both logs here. Each QEMU's user must be able to write there."
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="VFIO's and multifd's tracepoints too, which say more and cost more."),
    ] = False,
    limit: Annotated[
        float, typer.Option("--limit", metavar="SECONDS", min=1, help="How long all of it may take.")
    ] = 3600,
    json_file: JsonFile = None,
    trace_file: TraceFile = None,
    report_file: ReportFile = None,
    fail_above: FailAbove = None,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Observe a migration between two running QEMUs, and say where its downtime went.

    Switches tracepoints on at both and off again, follows the migration, and ends
    with what [cyan]migpool explain[/] says. Each QEMU (8.2 or later) needs a monitor that
    nobody else uses (-qmp unix:PATH,server=on,wait=off) and -msg timestamp=on.

      [cyan]migpool observe --source a.qmp --destination b.qmp[/]   you start the migration

      [cyan]migpool observe --source a.qmp --destination b.qmp -- tcp:HOST:4444 multifd=on downtime-limit=100[/]

    Ctrl-C ends the observation, not the migration.
    """
    import tempfile

    from migpool.cli.output import check_writable
    from migpool.errors import UsageError
    from migpool.lab.qemu.observe import Observation
    from migpool.lab.qemu.tracing import ALL, LIGHT

    monitors: dict[Side, str] = {}
    logs: dict[Side, Path] = {}
    sides: list[tuple[Side, str | None, Path | None]] = [
        ("source", source, source_log),
        ("destination", destination, destination_log),
    ]
    for side, monitor, log in sides:
        if monitor is not None:
            monitors[side] = monitor
        if log is not None:
            logs[side] = log
            if monitor is None:
                raise UsageError(f"--{side}-log without --{side}: name its monitor, too")
    if not monitors:
        raise UsageError("name a monitor with --source, with --destination, or better with both")
    uri, settings = _parsed(migrate or [])
    allowed = longest_allowed(fail_above)
    check_writable(json_file, trace_file, report_file)
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--keep {keep}: {error.strerror or error}") from None
    with tempfile.TemporaryDirectory(prefix="migpool-observe-") as temporary:
        wanted = Observation(
            monitors, keep or Path(temporary), logs, ALL if everything else LIGHT, uri, settings, limit
        )
        found = _observed(wanted)
    show(found, json_file, trace_file, report_file, allowed)


def _parsed(words: list[str]) -> tuple[str, dict[str, str]]:
    """The address, and what is to be set."""
    from migpool.errors import UsageError

    if not words:
        return "", {}
    uri, *rest = words
    settings = {}
    for word in rest:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UsageError(f"{word!r}: after the address come capabilities and parameters as NAME=VALUE")
        settings[name.replace("_", "-")] = value
    return uri, settings


def _observed(wanted: Observation) -> Explained:
    """Observe, with a line of progress on stderr; SIGINT and SIGTERM end it in order."""
    import asyncio
    import signal
    import sys
    from dataclasses import replace

    from rich.markup import escape

    from migpool.cli.output import complain
    from migpool.lab.qemu.observe import observe as observed
    from migpool.lab.report.table import console_for

    console = console_for(sys.stderr)
    first: list[signal.Signals] = []

    async def run(told: Callable[[str], None]) -> Explained:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end(number: signal.Signals) -> None:
            if not first:  # what is switched off again must not be cancelled, too; each step has a limit
                complain("cancelling ...")
                task.cancel()
            first.append(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
        return await observed(replace(wanted, told=told))

    said = ""

    def plain(line: str) -> None:
        nonlocal said
        if (state := line.partition(",")[0]) != said:
            said = state
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        if not console.is_terminal:
            return asyncio.run(run(plain))
        with console.status("connecting") as status:
            return asyncio.run(run(lambda line: status.update(escape(line))))
    except asyncio.CancelledError:
        raise typer.Exit(128 + first[0]) from None
