"""``migpool vfio probe``: which devices of this host can migrate."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug

__all__ = ["probe"]


def probe(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    debug: Debug = False,
) -> None:
    """Say which VFIO devices of this host can migrate, and why others cannot.

    Shown are mediated devices, devices bound to VFIO, and virtual functions. One that
    can be opened is opened for a moment and asked; nothing about it is changed.

      [cyan]migpool vfio probe[/]

      [cyan]migpool vfio probe --json[/]
    """
    set_up(context, 0, None, debug)
    from migpool_plugins.vfio.kernel.probe import probe as look

    found = look()
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps({"schema": 1, "devices": [asdict(finding) for finding in found]}, indent=2))
        return
    if not found:
        typer.echo("no mediated device, virtual function or device bound to VFIO is on this host")
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from migpool.lab.table import console_for

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("Device", "Driver", "Group", "State"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Migrates")
    for finding in found:
        verdict = Text(", ".join(finding.flags)) if finding.migrates else Text(f"no: {finding.reason}", style="red")
        table.add_row(Text(finding.name, style="bold"), finding.driver, finding.group, finding.state, verdict)
    console_for(sys.stdout).print(table)
