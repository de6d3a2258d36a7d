"""Puts the commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from migpool.cli.compare import compare
from migpool.cli.conformance import conformance
from migpool.cli.inspect import inspect
from migpool.cli.invocation import set_up
from migpool.cli.lab import lab_app
from migpool.cli.newdevice import new_device, new_model
from migpool.cli.options import Debug, LogFormatOption, Verbose
from migpool.cli.plugins import plugins
from migpool.cli.receive import receive
from migpool.cli.record import record
from migpool.cli.replay import replay
from migpool.cli.report import report
from migpool.cli.run import run
from migpool.cli.scenario import scenario_app
from migpool.cli.send import send
from migpool.cli.snapshot import snapshot_app
from migpool.cli.vfio import vfio_app
from migpool.cli.vmsd import vmsd_app

__all__ = ["app"]

HELP = """
Move the device state of a virtual machine from one process to another, and find
out which thread should do which part of the work.

[bold]Begin with[/]

  [cyan]migpool compare[/]                  every threading model, and the answer

  [cyan]migpool run small -m pool:2[/]      one model, one migration

  [cyan]migpool report result.json[/]       what --json wrote, as a page for the browser

  [cyan]migpool scenario show default[/]    what is migrated; write your own from it

  [cyan]migpool plugins[/]                  installed devices and threading models

  [cyan]migpool lab list[/]                 what was claimed about them, as experiments

[bold]Between two processes or hosts of your own[/]

  [cyan]migpool receive default --listen tcp:0.0.0.0:4444[/]

  [cyan]migpool send default --to tcp:HOST:4444 --json result.json[/]

Exit codes: 0 completed and verified, 1 failed, 2 wrong usage, 130 cancelled.
"""

app = typer.Typer(
    help=HELP,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", show_default=False)] = False,
    verbose: Verbose = 0,
    log_format: LogFormatOption = None,
    debug: Debug = False,
) -> None:
    """Take the common options that stand before the command."""
    set_up(context, verbose, log_format, debug)
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"migpool {version_of('migpool')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


app.command()(run)
app.command()(compare)
app.command()(send)
app.command()(receive)
app.command()(record)
app.command()(replay)
app.command()(report)
app.command()(inspect)
app.command()(plugins)
app.command()(conformance)
app.command()(new_device)
app.command()(new_model)
app.add_typer(scenario_app, name="scenario")
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(vfio_app, name="vfio")
app.add_typer(vmsd_app, name="vmsd")
app.add_typer(lab_app, name="lab")
