"""``migpool new-device`` and ``migpool new-model``: packages to begin a plug-in with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug

Into = Annotated[Path, typer.Option("--into", metavar="DIRECTORY", help="Where the package's directory is made.")]


def new_device(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plug-in's name, such as my-device.")],
    into: Into = Path(),
    debug: Debug = False,
) -> None:
    """Write a package with a device plug-in that works, to change into your own.

    It migrates, passes [cyan]migpool conformance[/] under every threading model, and has
    its checks as tests.

      [cyan]migpool new-device my-device && pip install -e ./my-device && migpool conformance my-device[/]
    """
    set_up(context, 0, None, debug)
    from migpool.conformance.skeleton import write_package

    made = write_package("device", name, into)
    typer.echo(f"{made}: pip install --editable '{made}[test]', then migpool conformance {name}")


def new_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name, such as my-model.")],
    into: Into = Path(),
    debug: Debug = False,
) -> None:
    """Write a package with a threading model that works, to change into your own.

    It migrates, passes [cyan]migpool conformance --model[/], and has its checks as tests.

      [cyan]migpool new-model my-model && pip install -e ./my-model && migpool conformance --model my-model[/]
    """
    set_up(context, 0, None, debug)
    from migpool.conformance.skeleton import write_package

    made = write_package("scheduler", name, into)
    typer.echo(f"{made}: pip install --editable '{made}[test]', then migpool conformance --model {name}")
