"""``migpool send``: the source's side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli import options, streamfile
from migpool.cli.invocation import Invocation
from migpool.cli.tuning import DowntimeLimitOption, InTurnOption, MaxBandwidthOption, Tuning


def send(
    context: typer.Context,
    scenario: options.ScenarioArgument,
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="tcp:HOST:PORT or unix:PATH.")],
    channels: streamfile.ChannelsOption = 0,
    uuid: streamfile.UuidOption = None,
    no_return_path: streamfile.NoReturnPath = False,
    idle: streamfile.IdleOption = 60,
    model: options.ModelOption = "pool",
    count: options.Count = 1,
    json_file: options.JsonFile = None,
    trace_file: options.TraceFile = None,
    seed: options.SeedOption = None,
    downtime_limit: DowntimeLimitOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    in_turn: InTurnOption = None,
    _verbose: options.Verbose = 0,
    _format: options.LogFormatOption = None,
    _: options.Debug = False,
) -> None:
    """Be the source: send the scenario's machine to a destination that listens.

    Both ends need the same scenario and seed; each may have its own model.
    Ctrl-C cancels in order: the machine runs here again. What only the
    destination knows is missing in the files.

      [cyan]migpool send small --to tcp:192.0.2.7:4444 -m pool:4[/]

    Instead of a scenario, a stream file as QEMU or [cyan]receive --store[/] writes it:

      [cyan]migpool send vm.mig --to tcp:192.0.2.7:4444 --channels 4[/]
    """
    invocation: Invocation = context.obj
    if streamfile.is_stream_file(scenario):
        raise typer.Exit(
            streamfile.send_stream_file(
                invocation, Path(scenario), to, channels, uuid=uuid, return_path=not no_return_path, idle=idle
            )
        )
    streamfile.check_scenario_options(channels, uuid, no_return_path)
    from migpool.cli.oneside import OneSide, send_machines

    tuning = Tuning(downtime_limit, max_bandwidth, in_turn)
    side = OneSide(invocation, scenario, model, "source", to, count=count, seed=seed, tuning=tuning)
    raise typer.Exit(send_machines(side, json_file=json_file, trace_file=trace_file))
