"""``migpool record``: between a source and a destination."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import Invocation, complain, say
from migpool.cli.options import ConnectOption, Debug, DestinationOption, LogFormatOption, Verbose


def record(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory for the recording.")],
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="For the source: tcp:HOST:PORT (port 0: any), unix:PATH.")
    ],
    to: DestinationOption,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long a source may take to come.")
    ] = 300,
    connect: ConnectOption = 10,
    idle: Annotated[
        float, typer.Option("--idle", metavar="SECONDS", min=0, help="How long nothing at all may pass.")
    ] = 3600,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Stand between a source and a destination; write down every byte that passes, and when.

    Start the destination, then this, then have the source migrate to the address
    that is said here. Any source and destination of QEMU's format will do.
    The recording holds the guest's memory: it can be read by its owner alone.

      [cyan]migpool record rec --listen tcp:127.0.0.1:4444 --to tcp:192.0.2.7:4444[/]

      [cyan]migpool inspect rec[/]

    A disk that is full ends the recording, not the migration. Exit codes: 0 complete,
    1 the recording is not complete, 2 wrong usage, 130 cancelled.
    """
    import structlog

    from migpool.cli.interrupt import Interrupt
    from migpool.cli.logs import announce, configure
    from migpool.streams.record.index import Connection
    from migpool.streams.record.recorder import Recorder, RecorderLimits
    from migpool.transport.address import Address

    def opened(connection: Connection) -> None:
        log.info("connection", number=connection.number, role=connection.name, uuid=connection.uuid)

    invocation: Invocation = context.obj
    configure(invocation)
    log = structlog.get_logger()
    many_descriptors()
    with Interrupt(complain) as interrupt:
        index = Recorder(
            Address.parse(listen),
            Address.parse(to),
            directory,
            limits=RecorderLimits(wait, connect, idle),
            listening=lambda address: announce(invocation, "listening on", address=str(address)),
            opened=opened,
            warn=complain,
            stop=interrupt,
        ).run()
        cancelled = interrupt()
    there = sum(one.source.bytes for one in index.connections)
    back = sum(one.destination.bytes for one in index.connections)
    what = f"{len(index.connections)} connections, {there} bytes from the source, {back} from the destination"
    if not index.complete:
        complain(f"{directory} is not complete: {index.reason} ({what})")
        raise typer.Exit(interrupt.exit_code if cancelled else 1)
    say(f"{directory}: complete: {what}")


def many_descriptors() -> None:
    """Allow as many descriptors as the system lets a process have: a connection needs ten."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
