"""``migpool report``: results as a page for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.options import Debug, LogFormatOption, Verbose
from migpool.cli.output import REPORT, check_writable, reported, write


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Files that --json wrote.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", dir_okay=False, help="Where to write it.")
    ] = REPORT,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Tell of one result or more on one page: which model, how much, and why.

    The page is a single HTML file that needs no network. Results of one
    scenario on one host are told as one.

      [cyan]migpool compare small --json result.json[/]

      [cyan]migpool report result.json -o report.html[/]
    """
    from migpool.lab.report.page.document import document
    from migpool.lab.run.form import read_form
    from migpool.lab.run.result import LabResult

    check_writable(output)
    read = [read_form(path, LabResult, "result", "--json") for path in results]
    names = list(dict.fromkeys(result.scenario for result in read))
    write(output, document(read, f"migpool: {', '.join(names)}"))
    typer.echo(reported(output))
