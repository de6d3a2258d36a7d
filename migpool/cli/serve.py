"""``migpool vfio serve``: emulated VFIO devices for any vfio-user client."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug

__all__ = ["serve"]


def serve(
    context: typer.Context,
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A device profile: network-function, tiny ...")],
    path: Annotated[str, typer.Option("--socket", metavar="PATH", help="Where to listen.")],
    devices: Annotated[
        int, typer.Option("--devices", "-n", help="How many; with more than one at PATH.0, PATH.1 ...")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Decides the state; the same for both ends.")] = 1,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of a vfio entry, as in a scenario."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Serve emulated VFIO devices over vfio-user, until SIGINT or SIGTERM.

    A line on stdout for each device says that it listens; a line on stderr says why a
    device refused something, since a client is told but a number.

      [cyan]migpool vfio serve tiny --socket /tmp/vf[/]

      [cyan]migpool vfio serve network-function --socket /tmp/vf -n 4 -o precopy=true[/]

      [cyan]migpool vfio serve tiny --socket /tmp/vf -o 'fault={at=70000, kind="error"}'[/]
    """
    set_up(context, 0, None, debug)
    from migpool.cli.serving import run_server

    run_server(profile, path, devices, seed, option or [])
