"""``migpool inspect``: what is in a recorded stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug
from migpool.errors import UsageError

__all__ = ["inspect"]


def inspect(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-|DIR",
            help="A stream: a file (gzip too), a named pipe, [cyan]-[/] for standard input; or a recording.",
        ),
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="ID",
            help="Show the fields of this device: IDSTR or IDSTR#INSTANCE, also with * ? [...]. May be repeated.",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw a recording, as SVG.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    debug: Debug = False,
) -> None:
    """Show what is in a migration stream: configuration, commands, RAM, every section, and devices' fields.

    A truncated or damaged stream is shown as far as it goes, with the error and
    its byte; the exit code is then 1.

      [cyan]migpool inspect vm.mig[/]

      [cyan]migpool inspect vm.mig --device '*ahci*' --json[/]

      [cyan]zcat vm.mig.gz | migpool inspect -[/]

      [cyan]migpool inspect recording --picture recording.svg[/]
    """
    set_up(context, 0, None, debug)
    from migpool.cli.inspecting import inspect_directory, inspect_stream

    if source != "-" and Path(source).is_dir():
        raise typer.Exit(inspect_directory(Path(source), device or [], as_json, picture))
    if picture is not None:
        raise UsageError("--picture draws a recording: name its directory")
    raise typer.Exit(inspect_stream(source, device or [], as_json))
