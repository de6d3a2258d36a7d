"""``migpool report``: results as a page for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.files import REPORT, check_writable, reported, write
from migpool.cli.invocation import set_up
from migpool.cli.options import Debug, LogFormatOption, Verbose


def report(
    context: typer.Context,
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Files that --json wrote.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", dir_okay=False, help="Where to write it.")
    ] = REPORT,
    verbose: Verbose = 0,
    log_format: LogFormatOption = None,
    debug: Debug = False,
) -> None:
    """Tell of one result or more on one page: which model, how much, and why.

    The page is a single HTML file that needs no network. Results of one
    scenario on one host are told as one.

      [cyan]migpool compare small --json result.json[/]

      [cyan]migpool report result.json -o report.html[/]
    """
    set_up(context, verbose, log_format, debug)
    from migpool.lab.report.page.document import document
    from migpool.lab.run.form import read_form
    from migpool.lab.run.result import LabResult

    check_writable(output)
    read = [read_form(path, LabResult, "result", "--json") for path in results]
    names = list(dict.fromkeys(result.scenario for result in read))
    write(output, document(read, f"migpool: {', '.join(names)}"))
    typer.echo(reported(output))
