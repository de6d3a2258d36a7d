"""``migpool plugins``: what is installed; ``new-device`` and ``new-model``: packages to begin a plug-in with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from migpool.cli.options import Debug

if TYPE_CHECKING:
    from migpool.device import Option, Options
    from migpool.scenario.plugins import Plugin


def complete_plugin(incomplete: str) -> list[str]:
    """Names of devices and threading models."""
    from migpool.scenario.plugins import names

    return [name for name in (*names("device"), *names("scheduler")) if name.startswith(incomplete)]


def plugins(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show this one with its options.", autocompletion=complete_plugin),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """List the devices and threading models that are installed, or show one with its options.

    A package adds its own by an entry point in [cyan]migpool.devices[/] or
    [cyan]migpool.schedulers[/]. One that is broken is shown with its error; the others
    work all the same.

      [cyan]migpool plugins vfio[/]      what it is, and its options with types, units and defaults
    """
    from migpool.scenario.plugins import describe, named, options_of

    found = describe() if name is None else named(name)
    tables = options_of(name) if name is not None and found[0].kind == "device" and not found[0].error else []
    if as_json:
        import json
        from dataclasses import asdict

        told: list[dict[str, object]] = [asdict(plugin) for plugin in found]
        if name is not None:
            told[0]["options"] = [_as_json(option, table.to) for table in tables for option in table.declared]
        typer.echo(json.dumps(told, indent=2))
        return
    _print_plugins(found)
    for table in tables:
        _print_options(table)


def _as_json(option: Option[Any], to: str) -> dict[str, object]:
    """An option as JSON; ``with``: what else the entry says where there is this one; empty for nothing."""
    return {
        "with": to,
        **{key: getattr(option, key) for key in ("name", "type", "unit", "default", "values", "meaning")},
    }


def _print_plugins(found: Sequence[Plugin]) -> None:
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


def _print_options(options: Options) -> None:
    from rich.text import Text

    from migpool.lab.report.table import console_for, plain_table

    table = plain_table()
    for heading in ("Option", "Type", "Default", "What it is"):
        table.add_column(heading, no_wrap=heading == "Option")
    for option in options.declared:
        kind = f"{option.type}, {option.unit}" if option.unit else option.type
        allowed = f" ({option.shown_values})" if option.shown_values else ""
        row = (kind, option.shown_default, option.meaning + allowed)
        table.add_row(Text(option.name, style="bold"), *map(Text, row))
    console = console_for(sys.stdout)
    console.print(f"\nOptions{f' with {options.to}' if options.to else ''}", markup=False, highlight=False)
    console.print(table)


Into = Annotated[Path, typer.Option("--into", metavar="DIRECTORY", help="Where the package's directory is made.")]


def new_device(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plug-in's name, such as my-device.")],
    into: Into = Path(),
    _: Debug = False,
) -> None:
    """Write a package with a device plug-in that works, to change into your own.

    It migrates, passes [cyan]migpool conformance[/] under every threading model, and has
    its checks as tests.

      [cyan]migpool new-device my-device && pip install -e './my-device\\[test]' && migpool conformance my-device[/]
    """
    from migpool.conformance.skeleton import write_package

    made = write_package("device", name, into)
    typer.echo(f"{made}: pip install -e '{made}[test]', then migpool conformance {name}")


def new_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name, such as my-model.")],
    into: Into = Path(),
    _: Debug = False,
) -> None:
    """Write a package with a threading model that works, to change into your own.

    It migrates, passes [cyan]migpool conformance --model[/], and has its checks as tests.

      [cyan]migpool new-model my-model && pip install -e './my-model\\[test]' && migpool conformance --model my-model[/]
    """
    from migpool.conformance.skeleton import write_package

    made = write_package("scheduler", name, into)
    typer.echo(f"{made}: pip install -e '{made}[test]', then migpool conformance --model {name}")
