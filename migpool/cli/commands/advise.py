"""``migpool advise``: what to change so that a downtime is shorter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.options import Debug, FailAbove, LogFormatOption, Verbose, longest_allowed, too_long


def advise(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE.log [DESTINATION.log] | RECORDING",
            help="The trace logs of both QEMUs, or of one; or what [cyan]migpool record[/] wrote.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As Markdown on stdout, for the report of a bug.", show_default=False)
    ] = False,
    fail_above: FailAbove = None,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Say what to change so that the downtime of a real QEMU's migration is shorter.

    Multifd channels, multifd transfer of VFIO devices, the downtime limit, the order
    of devices, and which device to fix first: each with the milliseconds that it is
    worth at the most, and how sure that is. Says nothing where nothing helps.

      [cyan]migpool advise source.log destination.log[/]

      [cyan]migpool advise source.log destination.log --markdown > bug.md[/]

      [cyan]migpool advise source.log destination.log --fail-above 300ms[/]   exit code 1 if it was longer
    """
    from migpool.cli.output import complain, say
    from migpool.errors import UsageError
    from migpool.lab.qemu.advise import advise as of_logs
    from migpool.lab.qemu.advise_recording import advise_recording
    from migpool.lab.qemu.explain import explain
    from migpool.untrusted.text import printable_lines

    allowed = longest_allowed(fail_above)
    if as_json and markdown:
        raise UsageError("--json and --markdown are two forms of one output: choose one")
    if sources[0].is_dir():
        if len(sources) > 1:
            raise UsageError("one recording at a time")
        found = advise_recording(sources[0])
    elif len(sources) > 2:
        raise UsageError(f"{len(sources)} logs are too many: give the source's and the destination's, or one of them")
    else:
        found = of_logs(explain(*sources))
    if as_json:
        typer.echo(found.model_dump_json(indent=1, by_alias=True))
    elif markdown:
        typer.echo(printable_lines(found.markdown()))
    else:
        for line in found.lines():
            say(line)
    if said := too_long(found.downtime_ms / 1e3, allowed):
        complain(said)
        raise typer.Exit(1)
