"""``migpool run``: one model."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli import options
from migpool.cli.invocation import Invocation
from migpool.cli.tuning import DowntimeLimitOption, InTurnOption, MaxBandwidthOption, Tuning


def run(
    context: typer.Context,
    scenario: options.ScenarioArgument = "default",
    model: options.ModelOption = "pool",
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="How many migrations.")] = 1,
    json_file: options.JsonFile = None,
    trace_file: options.TraceFile = None,
    picture_file: options.PictureFile = None,
    report_file: options.ReportFile = None,
    seed: options.SeedOption = None,
    downtime_limit: DowntimeLimitOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    in_turn: InTurnOption = None,
    _verbose: options.Verbose = 0,
    _format: options.LogFormatOption = None,
    _: options.Debug = False,
) -> None:
    """Migrate a machine from one process to another under one threading model.

    Source and destination are processes of their own on this host. Ends with a
    time line of the switchover.

      [cyan]migpool run[/]      the default machine

      [cyan]migpool run small -m pool+receiver --repeat 5[/]

      [cyan]migpool run default --trace trace.json[/]

      [cyan]migpool run guest --max-bandwidth 500MiB/s[/]   a guest that writes its memory
    """
    invocation: Invocation = context.obj
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
