"""``migpool report``: results as a page for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.options import Debug, LogFormatOption, Verbose
from migpool.cli.output import REPORT, check_writable, reported, say, write


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Files that --json wrote.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", dir_okay=False, help="Where to write it.")
    ] = REPORT,
    before: Annotated[
        Path | None,
        typer.Option("--before", metavar="BEFORE.json", help="An earlier result, to set the others beside."),
    ] = None,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Tell of one result or more on one page: which model, how much, and why.

    The page is a single HTML file that needs no network. Results of one
    scenario on one host are told as one.

      [cyan]migpool compare small --json result.json[/]

      [cyan]migpool report result.json -o report.html[/]

      [cyan]migpool report now.json --before then.json[/]      what became of each model
    """
    from migpool.lab.report.change import NOTHING, changes
    from migpool.lab.report.page.document import document, joined
    from migpool.lab.run.form import read_form
    from migpool.lab.run.result import LabResult

    check_writable(output)
    read = [read_form(path, LabResult, "result", "--json") for path in results]
    earlier = None if before is None else read_form(before, LabResult, "result", "--json")
    if earlier is not None:
        found = [str(change) for part in joined(read) for change in changes(earlier, part)]
        for line in found or [NOTHING]:
            say(line)
    names = list(dict.fromkeys(result.scenario for result in read))
    write(output, document(read, f"migpool: {', '.join(names)}", earlier))
    say(reported(output))
