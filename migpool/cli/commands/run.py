"""``migpool run``: one model."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import (
    Debug,
    JsonFile,
    LogFormatOption,
    ModelOption,
    PictureFile,
    ReportFile,
    ScenarioArgument,
    SeedOption,
    TraceFile,
    Verbose,
)
from migpool.cli.tuning import DowntimeLimitOption, InTurnOption, MaxBandwidthOption, Tuning


def run(
    context: typer.Context,
    scenario: ScenarioArgument = "default",
    model: ModelOption = "pool",
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="How many migrations.")] = 1,
    json_file: JsonFile = None,
    trace_file: TraceFile = None,
    picture_file: PictureFile = None,
    report_file: ReportFile = None,
    seed: SeedOption = None,
    downtime_limit: DowntimeLimitOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    in_turn: InTurnOption = None,
    verbose: Verbose = 0,
    log_format: LogFormatOption = None,
    debug: Debug = False,
) -> None:
    """Migrate a machine from one process to another under one threading model.

    Source and destination are processes of their own on this host. Ends with a
    time line of the switchover.

      [cyan]migpool run[/]      the default machine

      [cyan]migpool run small -m pool+receiver --repeat 5[/]

      [cyan]migpool run default --trace trace.json[/]

      [cyan]migpool run guest --max-bandwidth 500MiB/s[/]   a guest that writes its memory
    """
    invocation = set_up(context, verbose, log_format, debug)
    from migpool.cli.runs import run_models

    code = run_models(
        invocation,
        scenario,
        [model],
        repeats=repeat,
        json_file=json_file,
        trace_file=trace_file,
        picture_file=picture_file,
        report_file=report_file,
        seed=seed,
        tuning=Tuning(downtime_limit, max_bandwidth, in_turn),
    )
    raise typer.Exit(code)
