"""``migpool simulate``: a scenario in virtual time, under threading models and as QEMU's own threads would do it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from migpool.cli.options import Debug, ModelsOption, ScenarioArgument


def simulate(
    scenario: ScenarioArgument,
    models: ModelsOption = "",
    channels: Annotated[
        int | None, typer.Option("--channels", metavar="N", min=1, max=255, help="How many, instead of the scenario's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """Predict a scenario's downtime in virtual time, by what its devices say of their times.

    Threading models, and what QEMU itself does with the same devices: [cyan]qemu[/]
    saves and loads them one after the other over the main channel;
    [cyan]qemu:transfer[/] has a thread a device for those that are iterable, over
    the multifd channels (x-migration-multifd-transfer=on). The same every time.

      [cyan]migpool scenario from source.log destination.log -o mine.toml[/]

      [cyan]migpool simulate mine.toml[/]

      [cyan]migpool simulate mine.toml --models qemu:transfer,pool:2 --channels 8[/]
    """
    from migpool.cli.output import say
    from migpool.scenario.schema import load_scenario
    from migpool.sim.machines import predicted, simulated_models

    found = load_scenario(scenario)
    if channels is not None:
        found = found.model_copy(update={"channels": found.channels.model_copy(update={"count": channels})})
    names = simulated_models([name.strip() for name in models.split(",") if name.strip()], found)
    downtimes = {name: predicted(found, name, scenario) for name in names}
    if as_json:
        form = {
            "schema": 1,
            "scenario": found.name,
            "channels": found.channels.count,
            "models": [{"model": name, "downtime_ms": seconds * 1e3} for name, seconds in downtimes.items()],
        }
        typer.echo(json.dumps(form, indent=2))
        return
    from rich.text import Text

    from migpool.lab.report.table import console_for, plain_table
    from migpool.units import format_duration

    table = plain_table()
    few = {"On two": 2, "On one": 1}
    table.add_column("Model")
    for heading in ("Downtime", "Of the first", *few):
        table.add_column(heading, justify="right")
    first = next(iter(downtimes.values()))
    for name, seconds in downtimes.items():
        bounds = [format_duration(predicted(found, name, scenario, count)) for count in few.values()]
        table.add_row(Text(name), format_duration(seconds), f"{seconds / first:.0%}" if first else "", *bounds)
    console_for(sys.stdout).print(table)
    say("on two, on one: with so many processors at each host, were all that devices take processor time")
    if found.description:
        say(f"{found.name}: {found.description}")
