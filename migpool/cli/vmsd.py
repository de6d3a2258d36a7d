"""``migpool vmsd``: descriptions of device state."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug

__all__ = ["Direction", "vmsd_app"]

vmsd_app = typer.Typer(
    help="Descriptions of device state (VMSD): whether one version can read what another wrote.",
    rich_markup_mode="rich",
    no_args_is_help=False,
)


class Direction(StrEnum):
    """Which migrations must work."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


@vmsd_app.callback(invoke_without_command=True)
def nothing(context: typer.Context) -> None:
    """Descriptions of device state (VMSD): whether one version can read what another wrote."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@vmsd_app.command()
def diff(
    context: typer.Context,
    old: Annotated[Path, typer.Argument(metavar="A", help="The old description; forward is from A to B.")],
    new: Annotated[Path, typer.Argument(metavar="B", help="The new one, of the same form.")],
    direction: Annotated[
        Direction, typer.Option("--direction", help="Which breaks count for the exit code.", show_default=True)
    ] = Direction.FORWARD,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count what breaks in some states only, too.", show_default=False)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    debug: Debug = False,
) -> None:
    """Say which differences of two descriptions break a migration, in which direction, and why.

    A and B are streams (gzip too), the JSON at a stream's end, or files that
    [cyan]-dump-vmstate[/] wrote. Forward is a migration from A to B, backward one from B to A.

    Exit codes: 0 compatible in the direction that counts, 1 something breaks,
    2 wrong usage.

      [cyan]migpool vmsd diff old.json new.json[/]

      [cyan]migpool vmsd diff 9.2.mig 10.0.mig --direction both --strict[/]
    """
    set_up(context, 0, None, debug)
    from migpool.cli.differing import print_diff

    raise typer.Exit(
        print_diff(
            old,
            new,
            forward=direction is not Direction.BACKWARD,
            backward=direction is not Direction.FORWARD,
            strict=strict,
            as_json=as_json,
        )
    )
