"""``migpool receive``: the destination's side."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Count, Debug, LogFormatOption, ModelOption, ScenarioArgument, SeedOption, Verbose

__all__ = ["receive"]


def receive(
    context: typer.Context,
    scenario: ScenarioArgument,
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="tcp:HOST:PORT (port 0: any) or unix:PATH.")
    ],
    model: ModelOption = "pool",
    count: Count = 1,
    seed: SeedOption = None,
    verbose: Verbose = 0,
    log_format: LogFormatOption = None,
    debug: Debug = False,
) -> None:
    """Be the destination: wait for a source, and load its machine.

    Says on stderr where it listens, with [cyan]--log-format json[/] as a JSON object.
    Nothing is encrypted and nobody authenticated: listen where only the source
    can connect.

      [cyan]migpool receive small --listen tcp:0.0.0.0:4444 -m pool+receiver[/]

      [cyan]migpool receive small --listen unix:/run/m.sock --count 0[/]
    """
    invocation = set_up(context, verbose, log_format, debug)
    from migpool.cli.oneside import OneSide, receive_machines

    side = OneSide(invocation, scenario, model, "destination", listen, count=count, seed=seed)
    raise typer.Exit(receive_machines(side))
