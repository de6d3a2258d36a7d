"""``migpool new-device``: a package to begin a device plug-in with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug

__all__ = ["new_device"]


def new_device(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plug-in's name, such as my-device.")],
    into: Annotated[
        Path, typer.Option("--into", metavar="DIRECTORY", help="Where the package's directory is made.")
    ] = Path(),
    debug: Debug = False,
) -> None:
    """Write a package with a device plug-in that works, to change into your own.

    It migrates, passes [cyan]migpool conformance[/] under every threading model, and has
    its checks as tests.

      [cyan]migpool new-device my-device && pip install -e ./my-device && migpool conformance my-device[/]
    """
    set_up(context, 0, None, debug)
    from migpool.conformance.skeleton import write_package

    made = write_package(name, into)
    typer.echo(f"{made}: pip install --editable '{made}[test]', then migpool conformance {name}")
