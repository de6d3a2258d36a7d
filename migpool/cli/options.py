"""Arguments and options that several commands have in common, and what the shell completes them to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from migpool.cli.invocation import Invocation, LogFormat
from migpool.errors import UsageError
from migpool.units import format_duration, parse_duration, parse_rate

if TYPE_CHECKING:
    from migpool.scenario.schema import Scenario  # pydantic takes its time


def complete_scenario(incomplete: str) -> list[str]:
    """Built-in scenarios; and files, which the shell knows."""
    from migpool.scenario import shipped

    names = list(shipped("scenario", "shipped"))
    paths = sorted(str(path) for path in Path().glob(f"{glob_safe(incomplete)}*") if path.suffix == ".toml")
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


_scenario = partial(
    typer.Argument,
    metavar="SCENARIO",
    help="A built-in scenario ([cyan]migpool scenario list[/]) or the path of a TOML file.",
    autocompletion=complete_scenario,
)
ScenarioArgument = Annotated[str, _scenario()]
OptionalScenario = Annotated[str | None, _scenario(show_default=False)]
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
TlsOption = Annotated[
    str,
    typer.Option(
        "--tls",
        metavar="DIR",
        help="Encrypt every connection, with the certificates or the key in DIR ([cyan]migpool tls[/] makes some).",
    ),
]
TlsHostnameOption = Annotated[
    str,
    typer.Option(
        "--tls-hostname",
        metavar="NAME",
        help="What the destination's certificate is for, if not for the host in the address.",
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Without TLS, too, listen where strangers can connect; take any user at the other end of a UNIX socket.",
        show_default=False,
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Seed of the made-up state, instead of the scenario's."),
]
Count = Annotated[
    int, typer.Option("--count", metavar="N", min=0, help="Migrations in a row; 0: until cancelled.", show_default=True)
]


def _file(name: str, metavar: str, what: str) -> Any:
    return typer.Option(name, metavar=metavar, dir_okay=False, help=f"Write {what}")


JsonFile = Annotated[Path | None, _file("--json", "FILE", "the result as JSON (schema 1), with a trace of each model.")]
TraceFile = Annotated[Path | None, _file("--trace", "FILE", "a Chrome trace; https://ui.perfetto.dev opens it.")]
PictureFile = Annotated[Path | None, _file("--picture", "FILE.svg", "the table as an SVG picture.")]
ReportFile = Annotated[Path | None, _file("--report", "FILE.html", "the report, one HTML file, to FILE.")]

FailAbove = Annotated[
    str | None,
    typer.Option(
        "--fail-above",
        metavar="DURATION",
        help='Exit with 1 if the downtime was longer than this: "300ms".',
        show_default=False,
    ),
]


def longest_allowed(value: str | None) -> float:
    """The duration of ``--fail-above`` in seconds; infinite without one.

    Raises:
        UsageError: it is no duration.
    """
    try:
        return inf if value is None else parse_duration(value)
    except ValueError as error:
        raise UsageError(f"--fail-above: {error}") from None


def too_long(downtime: float, allowed: float) -> str:
    """What to say of a downtime, in seconds, that is longer than allowed; empty if it is not."""
    if downtime <= allowed:
        return ""
    return f"the downtime is {format_duration(downtime)}: more than the {format_duration(allowed)} of --fail-above"


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


DowntimeLimitOption = Annotated[
    float | None,
    typer.Option(
        "--downtime-limit",
        metavar="SECONDS",
        min=0.0001,
        max=86400,
        help="Switch over once what is left takes no longer than this.",
    ),
]
MaxBandwidthOption = Annotated[
    str | None,
    typer.Option(
        "--max-bandwidth", metavar="RATE", help='Most memory sent a second while the machine runs: "500MiB/s".'
    ),
]
InTurnOption = Annotated[
    bool | None,
    typer.Option(
        "--in-turn/--together",
        help="After the stop, save memory, iterable devices and the rest one after the other, or all at once.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of a scenario is to be otherwise; ``None`` leaves it.

    Arguments:
        downtime_limit: in seconds.
        max_bandwidth: as it was written.
        in_turn: the opposite of ``together``.
        tls: a directory with credentials; empty leaves it.
        tls_hostname: what the destination's certificate is for; empty leaves it.
    """

    downtime_limit: float | None = None
    max_bandwidth: str | None = None
    in_turn: bool | None = None
    tls: str = ""
    tls_hostname: str = ""

    def applied(self, scenario: Scenario) -> Scenario:
        """The scenario with these changes.

        Raises:
            UsageError: the bandwidth is no rate.
        """
        changes: dict[str, object] = {}
        if self.downtime_limit is not None:
            changes["downtime_limit"] = self.downtime_limit
        if self.max_bandwidth is not None:
            try:
                changes["max_bandwidth"] = parse_rate(self.max_bandwidth)
            except ValueError as error:
                raise UsageError(f"--max-bandwidth: {error}") from None
            if not changes["max_bandwidth"]:
                raise UsageError("--max-bandwidth: it must be over 0; leave it out for no limit")
        if self.in_turn is not None:
            changes["together"] = not self.in_turn
        trust = {name: value for name in ("tls", "tls_hostname") if (value := getattr(self, name))}
        return scenario.model_copy(
            update={
                "migration": scenario.migration.model_copy(update=changes),
                "channels": scenario.channels.model_copy(update=trust),
            }
        )
