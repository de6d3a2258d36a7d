"""Puts the commands together."""

from __future__ import annotations

from typing import Annotated, ClassVar

import typer

from migpool.cli.lazy import LazyGroup
from migpool.cli.options import Debug, LogFormatOption, Verbose

HELP = """
Move the device state of a virtual machine from one process to another, and find
out which thread should do which part of the work.

[bold]Begin with[/]

  [cyan]migpool tour[/]                     three minutes, by real runs

  [cyan]migpool compare[/]                  every threading model, and the answer

  [cyan]migpool run small -m pool:2[/]      one model, one migration

  [cyan]migpool report result.json[/]       what --json wrote, as a page for the browser

  [cyan]migpool scenario show default[/]    what is migrated; write your own from it

  [cyan]migpool plugins[/]                  installed devices and threading models

  [cyan]migpool lab list[/]                 what was claimed about them, as experiments

  [cyan]migpool explain source.log destination.log[/]    where a real QEMU's downtime went

  [cyan]migpool observe --source a.qmp --destination b.qmp[/]    the same of two that run

[bold]Between two processes or hosts of your own[/]

  [cyan]migpool receive default --listen tcp:0.0.0.0:4444 --tls pki[/]

  [cyan]migpool send default --to tcp:HOST:4444 --tls pki[/]

Exit codes: 0 completed, with every state verified that has a fingerprint at both ends
(what says "not compared" has none), 1 failed or not confirmed, 2 wrong usage, 130 cancelled.
"""

COMMANDS = "migpool.cli.commands"


class Commands(LazyGroup):
    """All that stand after ``migpool``, in the order in which help lists them."""

    targets: ClassVar[dict[str, str]] = {
        "tour": f"{COMMANDS}.tour:tour",
        "run": f"{COMMANDS}.run:run",
        "compare": f"{COMMANDS}.run:compare",
        "send": f"{COMMANDS}.send:send",
        "receive": f"{COMMANDS}.send:receive",
        "record": f"{COMMANDS}.record:record",
        "replay": f"{COMMANDS}.record:replay",
        "report": f"{COMMANDS}.report:report",
        "explain": f"{COMMANDS}.explain:explain",
        "advise": f"{COMMANDS}.advise:advise",
        "simulate": f"{COMMANDS}.simulate:simulate",
        "observe": f"{COMMANDS}.observe:observe",
        "inspect": f"{COMMANDS}.inspect:inspect",
        "plugins": f"{COMMANDS}.plugins:plugins",
        "conformance": f"{COMMANDS}.conformance:conformance",
        "new-device": f"{COMMANDS}.plugins:new_device",
        "new-model": f"{COMMANDS}.plugins:new_model",
        "scenario": f"{COMMANDS}.scenario:app",
        "snapshot": f"{COMMANDS}.snapshot:app",
        "tls": f"{COMMANDS}.tls:app",
        "vmsd": f"{COMMANDS}.vmsd:app",
        "lab": f"{COMMANDS}.lab:app",
    }


app = typer.Typer(
    cls=Commands,
    help=HELP,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", show_default=False)
    ] = False,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Take the common options that stand before the command."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"migpool {version_of('migpool')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
