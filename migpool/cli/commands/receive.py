"""``migpool receive``: the destination's side."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Count, Debug, LogFormatOption, ModelOption, SeedOption, Verbose
from migpool.cli.streamfile import (
    ChannelsOption,
    IdleOption,
    OptionalScenario,
    StoreOption,
    check_scenario_options,
    receive_stream_file,
)
from migpool.errors import UsageError


def receive(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="tcp:HOST:PORT (port 0: any) or unix:PATH.")
    ],
    scenario: OptionalScenario = None,
    store: StoreOption = None,
    channels: ChannelsOption = 0,
    idle: IdleOption = 60,
    model: ModelOption = "pool",
    count: Count = 1,
    seed: SeedOption = None,
    verbose: Verbose = 0,
    log_format: LogFormatOption = None,
    debug: Debug = False,
) -> None:
    """Be the destination: wait for a source, and load its machine.

    With [cyan]--store[/] the machine of any source becomes a file. Let the source have a
    return path: only then does it hear that a disk was full, and the machine goes on.

    Says on stderr where it listens, with [cyan]--log-format json[/] as a JSON object.
    Nothing is encrypted and nobody authenticated: listen where only the source
    can connect.

      [cyan]migpool receive small --listen tcp:0.0.0.0:4444 -m pool+receiver[/]

      [cyan]migpool receive small --listen unix:/run/m.sock --count 0[/]

      [cyan]migpool receive --store vm.mig --listen tcp:0.0.0.0:4444 --channels 4[/]
    """
    invocation = set_up(context, verbose, log_format, debug)
    if (store is None) == (scenario is None):
        raise UsageError("receive needs a SCENARIO to run, or --store FILE to store a machine of any kind")
    if store is not None:
        raise typer.Exit(receive_stream_file(invocation, store, listen, channels, idle))
    assert scenario is not None
    check_scenario_options(channels)
    from migpool.cli.oneside import OneSide, receive_machines

    side = OneSide(invocation, scenario, model, "destination", listen, count=count, seed=seed)
    raise typer.Exit(receive_machines(side))
