"""Arguments and options that several commands have in common, and what the shell completes them to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from migpool.cli.invocation import Invocation, LogFormat


def complete_scenario(incomplete: str) -> list[str]:
    """Built-in scenarios; and files, which the shell knows."""
    from importlib.resources import files

    found = (entry.name for entry in files("migpool").joinpath("scenario", "shipped").iterdir())
    names = sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))
    paths = sorted(str(path) for path in Path().glob(f"{glob_safe(incomplete)}*.toml"))
    return [name for name in names + paths if name.startswith(incomplete)]


def glob_safe(text: str) -> str:
    """``text`` without what a pattern means something by."""
    return "" if any(character in text for character in "*?[") or text.startswith("/") else text


def complete_model(incomplete: str) -> list[str]:
    """Names of threading models, after a ``+`` too."""
    from migpool.scenario.plugins import names

    before, plus, _ = incomplete.rpartition("+")
    return [found for name in names("scheduler") if (found := f"{before}{plus}{name}").startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """The same, after a comma too."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{found}" for found in complete_model(last)]


ScenarioArgument = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO",
        help="A built-in scenario ([cyan]migpool scenario list[/]) or the path of a TOML file.",
        autocompletion=complete_scenario,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Threading model: [cyan]pool[/], [cyan]pool:4[/] (workers), [cyan]pool:4:queue[/] (jobs queue, the "
        "submitter does not block), [cyan]elastic:setup[/] or [cyan]per-device:switchover[/] (when the threads start), "
        "[cyan]pool+receiver[/] (source+destination).",
        autocompletion=complete_model,
    ),
]
ModelsOption = Annotated[
    str,
    typer.Option(
        "--models",
        metavar="A,B,C",
        help="Threading models as for [cyan]run --model[/], separated by commas. Without it: those of the scenario, "
        "else all that are installed.",
        autocompletion=complete_models,
    ),
]
DestinationOption = Annotated[
    str, typer.Option("--to", metavar="ADDRESS", help="The destination: tcp:HOST:PORT or unix:PATH.")
]
ConnectOption = Annotated[
    float, typer.Option("--connect", metavar="SECONDS", min=0, help="How long the destination is looked for.")
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Seed of the made-up state, instead of the scenario's."),
]
Count = Annotated[
    int, typer.Option("--count", metavar="N", min=0, help="Migrations in a row; 0: until cancelled.", show_default=True)
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        dir_okay=False,
        help="Write the result as JSON (schema 1), with a trace of each model.",
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(
        "--trace", metavar="FILE", dir_okay=False, help="Write a Chrome trace; https://ui.perfetto.dev opens it."
    ),
]
PictureFile = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE.svg", dir_okay=False, help="Write the table as an SVG picture."),
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", dir_okay=False, help="Write the report, one HTML file, to FILE."),
]


def _noted(name: str) -> Callable[[typer.Context, Any], Any]:
    """A callback that adds a common option to the call's; it may stand before the command and after it."""

    def note(context: typer.Context, value: Any) -> Any:
        invocation: Invocation | None = context.obj  # none while a shell completes
        if value and invocation is not None:
            setattr(invocation, name, invocation.verbose + value if name == "verbose" else value)
        return value

    return note


Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, help="Log each change of state.", show_default=False, callback=_noted("verbose")
    ),
]
LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        help="How log lines look on stderr.",
        show_default="pretty",
        callback=_noted("log_format"),
    ),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", show_default=False, callback=_noted("debug")),
]
