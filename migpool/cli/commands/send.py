"""``migpool send``: the source's side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import (
    Count,
    Debug,
    JsonFile,
    LogFormatOption,
    ModelOption,
    ScenarioArgument,
    SeedOption,
    TraceFile,
    Verbose,
)
from migpool.cli.streamfile import (
    ChannelsOption,
    IdleOption,
    NoReturnPath,
    UuidOption,
    check_scenario_options,
    is_stream_file,
    send_stream_file,
)
from migpool.cli.tuning import DowntimeLimitOption, InTurnOption, MaxBandwidthOption, Tuning


def send(
    context: typer.Context,
    scenario: ScenarioArgument,
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="tcp:HOST:PORT or unix:PATH.")],
    channels: ChannelsOption = 0,
    uuid: UuidOption = None,
    no_return_path: NoReturnPath = False,
    idle: IdleOption = 60,
    model: ModelOption = "pool",
    count: Count = 1,
    json_file: JsonFile = None,
    trace_file: TraceFile = None,
    seed: SeedOption = None,
    downtime_limit: DowntimeLimitOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    in_turn: InTurnOption = None,
    verbose: Verbose = 0,
    log_format: LogFormatOption = None,
    debug: Debug = False,
) -> None:
    """Be the source: send the scenario's machine to a destination that listens.

    Both ends need the same scenario and seed; each may have its own model.
    Ctrl-C cancels in order: the machine runs here again. What only the
    destination knows is missing in the files.

      [cyan]migpool send small --to tcp:192.0.2.7:4444 -m pool:4[/]

    Instead of a scenario, a stream file as QEMU or [cyan]receive --store[/] writes it:

      [cyan]migpool send vm.mig --to tcp:192.0.2.7:4444 --channels 4[/]
    """
    invocation = set_up(context, verbose, log_format, debug)
    if is_stream_file(scenario):
        raise typer.Exit(
            send_stream_file(
                invocation, Path(scenario), to, channels, uuid=uuid, return_path=not no_return_path, idle=idle
            )
        )
    check_scenario_options(channels, uuid, no_return_path)
    from migpool.cli.oneside import OneSide, send_machines

    tuning = Tuning(downtime_limit, max_bandwidth, in_turn)
    side = OneSide(invocation, scenario, model, "source", to, count=count, seed=seed, tuning=tuning)
    raise typer.Exit(send_machines(side, json_file=json_file, trace_file=trace_file))
