"""List, show, check and make scenarios: which machine is migrated, and how."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.lazy import group
from migpool.cli.options import Debug, complete_scenario
from migpool.units import count_of

app = group(__doc__ or "")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A built-in scenario, or the path of a file.", autocompletion=complete_scenario
    ),
]


@app.command("list")
def list_builtin(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """List the built-in scenarios."""
    from migpool.scenario.schema import builtin_names, load_scenario

    if as_json:
        import json

        builtin = [{**load_scenario(name).model_dump(mode="json"), "name": name} for name in builtin_names()]
        typer.echo(json.dumps(builtin, indent=2))
        return
    from rich.text import Text

    from migpool.lab.report.table import console_for, plain_table

    table = plain_table()
    table.add_column("Name", no_wrap=True)
    table.add_column("Devices", justify="left")
    table.add_column("What it is")
    for name in builtin_names():
        found = load_scenario(name)
        devices = ", ".join(
            f"{entry.count} {entry.plugin}" if entry.count > 1 else entry.plugin for entry in found.devices
        )
        table.add_row(Text(name, style="bold"), devices, found.description)
    console_for(sys.stdout).print(table)


@app.command("show")
def show(name: Name, _: Debug = False) -> None:
    """Print a scenario as it is written: a good beginning for one of your own.

    [cyan]migpool scenario show default > mine.toml[/]
    """
    from migpool.scenario.schema import load_scenario, scenario_text

    load_scenario(name)
    typer.echo(scenario_text(name), nl=False)


@app.command("from")
def from_measured(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE.log DESTINATION.log | RECORDING ...",
            help="The trace logs of both QEMUs, a recording of [cyan]migpool record[/], or all three.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there instead of on stdout.")
    ] = None,
    _: Debug = False,
) -> None:
    """Write a scenario with the devices of a real QEMU's migration, each with the times and sizes that were measured.

    What [cyan]migpool simulate[/] and [cyan]migpool compare[/] then say of it is what other threads
    would make of the same devices. Where each number comes from stands in it.

    [cyan]migpool scenario from source.log destination.log recording -o mine.toml[/]
    """
    from migpool.cli.output import check_writable, write_all
    from migpool.lab.qemu.scenario import scenario_from

    check_writable(output)
    text = scenario_from(sources)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_all({output: text})
        typer.echo(f"{output} is written: migpool simulate {shlex.quote(str(output))}", err=True)


@app.command("check")
def check(name: Name, _: Debug = False) -> None:
    """Check a scenario: every key, the models, and whether the devices can be made here, at both ends."""
    from migpool.device import Side
    from migpool.scenario.build import build_machine
    from migpool.scenario.model_syntax import scenario_models
    from migpool.scenario.schema import load_scenario

    found = load_scenario(name)
    scenario_models(found, name)
    sides: tuple[Side, Side] = ("source", "destination")
    for side in sides:
        machine = build_machine(found, side, found.seed, name)
        machine.close()
    typer.echo(
        f"{name}: right: machine {machine.name} with {count_of(len(machine), 'device')}, "
        f"{len(machine.iterable)} of them iterable; {count_of(found.channels.count, 'channel')}, "
        f"memory budget {found.memory.budget} bytes"
    )
