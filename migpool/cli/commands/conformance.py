"""``migpool conformance``: the kits for authors of devices and of threading models."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.options import Debug, complete_model, complete_models
from migpool.errors import UsageError


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
    total: Annotated[
        float | None,
        typer.Option("--total", metavar="SECONDS", min=1, help="For all (default: 10 times the limit of one)."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the report for a review.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write it as JSON.")] = None,
    _: Debug = False,
    *,
    context: typer.Context,
) -> None:
    """Check a device plug-in, or a threading model: does it keep what its interface promises?

    A device plug-in's own devices are called one method after the other, migrated under every
    threading model, with short buffers and tight memory, cancelled at one wait after the other,
    failed in one call after the other, and given damaged input. One that has state and no
    fingerprint has failed, unless it can have none.

    A threading model is given jobs at each end that it is for: they must run once, in order, all
    of them; errors, cancels and devices that ignore abort must end it; no thread may be left.

    Checks run in a process of their own, which is ended when one does not end in its time; what
    could only follow from a mistake that was found is not run. --debug shows the traceback.

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
    from migpool.cli.invocation import Invocation
    from migpool.cli.output import check_writable, write
    from migpool.conformance.check import CheckResult
    from migpool.conformance.course import device_course, model_course
    from migpool.conformance.showing import Report, heading, lines
    from migpool.lab.report.table import console_for
    from migpool.scenario.plugins import distribution

    check_writable(markdown, json_file)
    console = console_for(sys.stdout)
    debug = context.ensure_object(Invocation).debug
    course = (
        model_course(model, limit, total)
        if model
        else device_course(
            plugin, option or [], count, models, limit, total, every_wait=every_wait, comparable=not no_fingerprint
        )
    )
    width = console.width if console.is_terminal else 0
    findings: list[CheckResult] = []
    with closing(course), console.status("") as status:
        console.print(heading(plugin or model, course), soft_wrap=True)
        for check in course.checks:
            status.update(f"{len(findings) + 1}/{len(course.checks)}  {check}: {check.about}")
            findings.append(course.run(check))
            for line in lines(findings[-1], course.checks, width, debug=debug):
                console.print(line, soft_wrap=True)
    package = distribution("scheduler" if model else "device", plugin or model)
    report = Report(plugin or model, package, ", ".join(option or []), findings)
    console.print(report.closing(), soft_wrap=True)
    if markdown is not None:
        write(markdown, report.markdown())
    if json_file is not None:
        write(json_file, report.to_json())
    raise typer.Exit(1 if report.failed else 0)
