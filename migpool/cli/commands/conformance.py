"""``migpool conformance``: the kits for authors of devices and of threading models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug, complete_model, complete_models
from migpool.errors import UsageError

if TYPE_CHECKING:
    from migpool.conformance.running import CheckResult


def complete_plugin(incomplete: str) -> list[str]:
    """Names of device plug-ins."""
    from migpool.scenario.plugins import names

    return [name for name in names("device") if name.startswith(incomplete)]


def conformance(
    context: typer.Context,
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
    limit: Annotated[float, typer.Option("--limit", metavar="SECONDS", min=1, help="For one check.")] = 60.0,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the report for a review.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write it as JSON.")] = None,
    debug: Debug = False,
) -> None:
    """Check a device plug-in, or a threading model: does it keep what its interface promises?

    A device plug-in's own devices are migrated in this process under every threading model,
    with short buffers and tight memory, cancelled at one wait after the other, failed in one
    call after the other, and given damaged input.

    A threading model is given jobs at each end that it is for, in a process of its own: they
    must run once, in order, all of them; errors, cancels and devices that ignore abort must
    end it; no thread may be left.

    Exit codes: 0 it conforms, 1 it does not, 2 wrong usage.

      [cyan]migpool conformance my-device -o size=65536 --models pool:1,per-device[/]

      [cyan]migpool conformance my-device --every-wait --markdown report.md[/]

      [cyan]migpool conformance --model my-model[/]
    """
    set_up(context, 0, None, debug)
    if bool(plugin) == bool(model):
        raise UsageError("name one thing to check: a device plug-in, or a threading model with --model NAME")
    if model and (option or models or every_wait or count != 1):
        raise UsageError("--option, --count, --models and --every-wait are for devices: leave them out with --model")
    from migpool.cli.files import check_writable, write
    from migpool.conformance.showing import Report
    from migpool.lab.report.table import console_for

    check_writable(markdown, json_file)
    total, found = _model(model, limit) if model else _device(plugin, option or [], count, models, every_wait, limit)
    console = console_for(sys.stdout)
    findings: list[CheckResult] = []
    with console.status("") as status:

        def watch(name: str) -> None:
            status.update(f"{len(findings) + 1}/{total}  {name}")

        for finding in found(watch):
            findings.append(finding)  # noqa: PERF402 -- counted meanwhile
    report = Report(plugin or model, _package(plugin or model, bool(model)), ", ".join(option or []), findings)
    console.print(report.table())
    if markdown is not None:
        write(markdown, report.markdown())
    if json_file is not None:
        write(json_file, report.to_json())
    raise typer.Exit(1 if report.failed else 0)


Checking = Callable[[Callable[[str], None]], "Iterator[CheckResult]"]


def _device(
    plugin: str, options: Sequence[str], count: int, models: str, every_wait: bool, limit: float
) -> tuple[int, Checking]:
    """How many checks there are of a device plug-in, and what runs them."""
    from migpool.conformance.devices.naming import check_list, subject_of
    from migpool.conformance.running import run_checks

    subject, checks = subject_of(plugin, options, count), check_list(models, every_wait=every_wait)
    return len(checks), lambda watch: run_checks(subject, checks, limit, lambda one: watch(f"{one}: {one.about}"))


def _model(name: str, limit: float) -> tuple[int, Checking]:
    """How many checks there are of a threading model, and what runs them."""
    from migpool.conformance.models import checks, subjects
    from migpool.conformance.models.child import run_apart

    found = subjects(name, limit)
    return sum(len(checks(one)) for one in found), lambda watch: run_apart(
        found, limit, lambda one: watch(f"{one}: {one.about}")
    )


def _package(name: str, model: bool) -> str:
    from migpool.scenario.plugins import describe

    plain, kind = name.partition(":")[0], "scheduler" if model else "device"
    found = (one for one in describe() if one.kind == kind and one.name == plain)
    return next((f"{one.distribution} {one.version}".strip() for one in found), "")
