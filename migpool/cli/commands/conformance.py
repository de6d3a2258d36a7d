"""``migpool conformance``: the kits for authors of devices and of threading models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from migpool.cli.options import Debug, complete_model, complete_models
from migpool.errors import UsageError

if TYPE_CHECKING:
    from migpool.conformance.check import Check, CheckResult


def complete_plugin(incomplete: str) -> list[str]:
    from migpool.scenario.plugins import names

    return [name for name in names("device") if name.startswith(incomplete)]


def conformance(
    plugin: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="A device plug-in's name.", autocompletion=complete_plugin)
    ] = "",
    model: Annotated[
        str,
        typer.Option("--model", metavar="MODEL", help="Check this threading model.", autocompletion=complete_model),
    ] = "",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of its devices; may be repeated."),
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many devices it makes.")] = 1,
    models: Annotated[
        str,
        typer.Option("--models", metavar="MODELS", help="Check devices under these.", autocompletion=complete_models),
    ] = "",
    every_wait: Annotated[
        bool, typer.Option("--every-wait", help="Cancel at every wait, not at some.", show_default=False)
    ] = False,
    no_fingerprint: Annotated[
        bool, typer.Option("--no-fingerprint", help="Its devices can have none.", show_default=False)
    ] = False,
    limit: Annotated[float, typer.Option("--limit", metavar="SECONDS", min=1, help="For one check.")] = 60.0,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the report for a review.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write it as JSON.")] = None,
    _: Debug = False,
) -> None:
    """Check a device plug-in, or a threading model: does it keep what its interface promises?

    A device plug-in's own devices are migrated in this process under every threading model,
    with short buffers and tight memory, cancelled at one wait after the other, failed in one
    call after the other, and given damaged input. One that has state and no fingerprint has
    failed, unless it can have none.

    A threading model is given jobs at each end that it is for, in a process of its own: they
    must run once, in order, all of them; errors, cancels and devices that ignore abort must
    end it; no thread may be left.

    Exit codes: 0 it conforms, 1 it does not, 2 wrong usage.

      [cyan]migpool conformance my-device -o size=65536 --models pool:1,per-device[/]

      [cyan]migpool conformance my-device --every-wait --markdown report.md[/]

      [cyan]migpool conformance --model my-model[/]
    """
    if bool(plugin) == bool(model):
        raise UsageError("name one thing to check: a device plug-in, or a threading model with --model NAME")
    if model and (option or models or every_wait or no_fingerprint or count != 1):
        raise UsageError(
            "--option, --count, --models, --every-wait, --no-fingerprint are for devices: leave them out with --model"
        )
    from migpool.cli.output import check_writable, write
    from migpool.conformance.check import Outcome
    from migpool.conformance.devices import device_runs
    from migpool.conformance.models import FIRST
    from migpool.conformance.models.child import model_runs
    from migpool.conformance.showing import Report
    from migpool.lab.report.table import console_for

    check_writable(markdown, json_file)
    console = console_for(sys.stdout)
    findings: list[CheckResult] = []
    broken: set[str] = set()
    with ExitStack() as stack, console.status("") as status:
        runs: Sequence[tuple[Check[Any], Callable[[], CheckResult]]]
        if model:
            runs = model_runs(model, limit, stack.callback)
        else:
            given = {"every_wait": every_wait, "comparable": not no_fingerprint}
            runs = device_runs(plugin, option or [], count, models, limit, **given)
        for check, run in runs:
            if check.under not in broken:
                status.update(f"{len(findings) + 1}/{len(runs)}  {check}: {check.about}")
                findings.append(run())
                if check.name == FIRST and findings[-1].outcome is Outcome.FAILED:
                    broken.add(check.under)
    report = Report(plugin or model, _package(plugin or model, bool(model)), ", ".join(option or []), findings)
    console.print(report.table())
    if markdown is not None:
        write(markdown, report.markdown())
    if json_file is not None:
        write(json_file, report.to_json())
    raise typer.Exit(1 if report.failed else 0)


def _package(name: str, model: bool) -> str:
    from migpool.scenario.plugins import describe

    plain, kind = name.partition(":")[0], "scheduler" if model else "device"
    found = (one for one in describe() if one.kind == kind and one.name == plain)
    return next((f"{one.distribution} {one.version}".strip() for one in found), "")
