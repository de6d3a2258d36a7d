"""``migpool inspect``: what is in a recorded stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.inspection import inspected
from migpool.cli.options import Debug


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-|DIR",
            help="A stream: a file, a named pipe, [cyan]-[/] for standard input; also compressed, in a save image of "
            "libvirt, or in a snapshot of a qcow2 image; or a recording.",
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
    offset: Annotated[
        int | None,
        typer.Option(
            "--offset", metavar="BYTES", min=0, help="Where in the file the stream begins (file:...,offset=)."
        ),
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="NAME", help="Which snapshot of a qcow2 image.")
    ] = None,
    xml: Annotated[
        bool, typer.Option("--xml", help="Print the XML of a libvirt save image, and no more.", show_default=False)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """Show what is in a migration stream: configuration, commands, RAM, every section, and devices' fields.

    A truncated or damaged stream is shown as far as it goes, with the error and
    its byte; the exit code is then 1.

      [cyan]migpool inspect vm.mig[/]

      [cyan]migpool inspect vm.mig --device '*ahci*' --json[/]

      [cyan]virsh save guest guest.save && migpool inspect guest.save[/]

      [cyan]migpool inspect recording --picture recording.svg[/]
    """
    raise typer.Exit(
        inspected(source, device or (), picture=picture, offset=offset, snapshot=snapshot, xml=xml, as_json=as_json)
    )
