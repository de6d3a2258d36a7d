"""``migpool plugins``: what is installed; ``new-device`` and ``new-model``: packages to begin a plug-in with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.options import Debug


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """List the devices and threading models that are installed.

    A package adds its own by an entry point in [cyan]migpool.devices[/] or
    [cyan]migpool.schedulers[/]. One that is broken is shown with its error; the others
    work all the same.
    """
    from migpool.scenario.plugins import describe

    found = describe()
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(plugin) for plugin in found], indent=2))
        return
    from rich.text import Text

    from migpool.lab.report.table import console_for, plain_table

    table = plain_table()
    for heading in ("Kind", "Name", "Package"):
        table.add_column(heading, no_wrap=True)
    table.add_column("What it is")
    words = {"device": "device", "scheduler": "model"}
    for plugin in found:
        summary = Text(f"BROKEN: {plugin.error}", style="red") if plugin.error else Text(plugin.summary)
        package = f"{plugin.distribution} {plugin.version}".strip()
        table.add_row(words[plugin.kind], Text(plugin.name, style="bold"), package, summary)
    console_for(sys.stdout).print(table)


Into = Annotated[Path, typer.Option("--into", metavar="DIRECTORY", help="Where the package's directory is made.")]


def new_device(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plug-in's name, such as my-device.")],
    into: Into = Path(),
    _: Debug = False,
) -> None:
    """Write a package with a device plug-in that works, to change into your own.

    It migrates, passes [cyan]migpool conformance[/] under every threading model, and has
    its checks as tests.

      [cyan]migpool new-device my-device && pip install -e ./my-device && migpool conformance my-device[/]
    """
    from migpool.conformance.skeleton import write_package

    made = write_package("device", name, into)
    typer.echo(f"{made}: pip install --editable '{made}[test]', then migpool conformance {name}")


def new_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name, such as my-model.")],
    into: Into = Path(),
    _: Debug = False,
) -> None:
    """Write a package with a threading model that works, to change into your own.

    It migrates, passes [cyan]migpool conformance --model[/], and has its checks as tests.

      [cyan]migpool new-model my-model && pip install -e ./my-model && migpool conformance --model my-model[/]
    """
    from migpool.conformance.skeleton import write_package

    made = write_package("scheduler", name, into)
    typer.echo(f"{made}: pip install --editable '{made}[test]', then migpool conformance --model {name}")
