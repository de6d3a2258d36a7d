"""``migpool receive``: the destination's side."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli import options, streamfile
from migpool.cli.invocation import Invocation
from migpool.errors import UsageError


def receive(
    context: typer.Context,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="tcp:HOST:PORT (port 0: any) or unix:PATH.")
    ],
    scenario: streamfile.OptionalScenario = None,
    store: streamfile.StoreOption = None,
    channels: streamfile.ChannelsOption = 0,
    idle: streamfile.IdleOption = 60,
    model: options.ModelOption = "pool",
    count: options.Count = 1,
    seed: options.SeedOption = None,
    _verbose: options.Verbose = 0,
    _format: options.LogFormatOption = None,
    _: options.Debug = False,
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
    invocation: Invocation = context.obj
    if (store is None) == (scenario is None):
        raise UsageError("receive needs a SCENARIO to run, or --store FILE to store a machine of any kind")
    if store is not None:
        raise typer.Exit(streamfile.receive_stream_file(invocation, store, listen, channels, idle))
    assert scenario is not None
    streamfile.check_scenario_options(channels)
    from migpool.cli.oneside import OneSide, receive_machines

    side = OneSide(invocation, scenario, model, "destination", listen, count=count, seed=seed)
    raise typer.Exit(receive_machines(side))
