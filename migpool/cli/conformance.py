"""``migpool conformance``: the kit for device authors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import set_up
from migpool.cli.options import Debug, complete_models

__all__ = ["conformance"]


def complete_plugin(incomplete: str) -> list[str]:
    """Names of device plug-ins."""
    from migpool.scenario.plugins import names

    return [name for name in names("device") if name.startswith(incomplete)]


def conformance(
    context: typer.Context,
    plugin: Annotated[
        str, typer.Argument(metavar="PLUGIN", help="A device plug-in's name.", autocompletion=complete_plugin)
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of its devices; may be repeated."),
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="How many devices it makes.")] = 1,
    models: Annotated[
        str, typer.Option("--models", metavar="MODELS", help="Instead of all.", autocompletion=complete_models)
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
    """Check a device plug-in: does it save, load, fail and get cancelled correctly, under every threading model?

    The plug-in's own devices are migrated in this process, with short buffers and tight
    memory, cancelled at one wait after the other, failed in one call after the other, and
    given damaged input. Nothing else of the plug-in's package is needed.

    Exit codes: 0 it conforms, 1 it does not, 2 wrong usage.

      [cyan]migpool conformance my-device[/]

      [cyan]migpool conformance my-device -o size=65536 --models pool:1,per-device[/]

      [cyan]migpool conformance my-device --every-wait --markdown report.md[/]
    """
    set_up(context, 0, None, debug)
    from migpool.cli.conforming import check_plugin

    raise typer.Exit(
        check_plugin(
            plugin,
            option or [],
            count,
            models,
            every_wait=every_wait,
            limit=limit,
            markdown=markdown,
            json_file=json_file,
            stream=sys.stdout,
        )
    )
