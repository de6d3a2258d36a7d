"""``migpool explain``: where the downtime of a real QEMU's migration went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migpool.cli.options import (
    Debug,
    FailAbove,
    JsonFile,
    LogFormatOption,
    ReportFile,
    TraceFile,
    Verbose,
    longest_allowed,
    too_long,
)

if TYPE_CHECKING:
    from migpool.lab.qemu.explain import Explained


def explain(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE.log [DESTINATION.log]",
            help="The trace logs of both QEMUs, also packed (gzip, xz); or of one of them.",
            show_default=False,
        ),
    ],
    json_file: JsonFile = None,
    trace_file: TraceFile = None,
    report_file: ReportFile = None,
    fail_above: FailAbove = None,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Say where the downtime of a real QEMU's migration went, and what would make it shorter.

    Reads what QEMU 8.2 or later logs of itself on both sides: start each with
    -msg timestamp=on -D FILE, and before the migration switch tracepoints on,
    in QMP by trace-event-set-state with "vmstate_downtime*" (that is enough),
    "vfio_*", "multifd_*", "qemu_loadvm*", "savevm_*", "migration_*", "loadvm_*"
    and "source_return_path*"; in HMP by: trace-event vmstate_downtime* on

      [cyan]migpool explain source.log destination.log[/]

      [cyan]migpool explain source.log destination.log --report why.html --json why.json[/]

      [cyan]migpool explain source.log destination.log --fail-above 300ms[/]   exit code 1 if it was longer
    """
    from migpool.cli.output import check_writable
    from migpool.errors import UsageError
    from migpool.lab.qemu.explain import explain as explained_by

    if len(logs) > 2:
        raise UsageError(f"{len(logs)} logs are too many: give the source's and the destination's, or one of them")
    allowed = longest_allowed(fail_above)
    check_writable(json_file, trace_file, report_file)
    show(explained_by(*logs), json_file, trace_file, report_file, allowed)


def show(
    found: Explained, json_file: Path | None, trace_file: Path | None, report_file: Path | None, allowed: float
) -> None:
    """Print what the logs say of a downtime, and write it into files.

    Arguments:
        allowed: the longest downtime in seconds; a longer one ends the command with 1.
    """
    import json
    import sys

    from migpool.cli.output import STDOUT, complain, reported, write_all
    from migpool.lab.report.chrome_trace import chrome_trace
    from migpool.lab.report.explained import render_explained
    from migpool.lab.report.page.document import document
    from migpool.lab.report.table import console_for

    console = console_for(sys.stderr if STDOUT in (json_file, trace_file, report_file) else sys.stdout)
    try:
        console.print(render_explained(found.result, console.width))
    finally:
        files: dict[Path, str] = {}
        if json_file is not None:
            files[json_file] = found.result.to_json()
        if trace_file is not None:
            files[trace_file] = json.dumps(chrome_trace([found.traced]))
        if report_file is not None:
            files[report_file] = document([found.result], f"migpool: {found.result.scenario}")
        write_all(files)
    if report_file is not None and report_file != STDOUT:
        console.print(reported(report_file), markup=False, highlight=False, soft_wrap=True)
    if said := too_long((found.result.runs[0].downtime_ms or 0.0) / 1e3, allowed):
        complain(said)
        raise typer.Exit(1)
