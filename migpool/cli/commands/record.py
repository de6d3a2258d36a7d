"""``migpool record``: between a source and a destination; ``migpool replay``: a recording, into a destination."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import Invocation
from migpool.cli.options import ConnectOption, Debug, DestinationOption, InsecureOption, LogFormatOption, Verbose
from migpool.cli.output import complain, noting, say
from migpool.units import count_of


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
    insecure: InsecureOption = False,
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
    from migpool.streams.record.index import Connection, has_resumed
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
            exposed=insecure,
            listening=lambda address: announce(invocation, "listening on", address=str(address)),
            opened=opened,
            warn=complain,
            noted=noting(),
            stop=interrupt,
        ).run()
        cancelled = interrupt()
    there = sum(one.source.bytes for one in index.connections)
    back = sum(one.destination.bytes for one in index.connections)
    what = (
        f"{count_of(len(index.connections), 'connection')}, {there} bytes from the source, {back} from the destination"
    )
    if not index.complete:
        complain(f"{directory} is not complete: {index.reason} ({what})")
        raise typer.Exit(interrupt.exit_code if cancelled else 1)
    if index.main is None:
        if has_resumed(directory, index):
            what += "; a postcopy went on on them after a break, which cannot be replayed"
        else:
            what += "; they are TLS (16 03), and cannot be read: record without tls-creds to inspect or replay"
    say(f"{directory}: complete: {what}")


def many_descriptors() -> None:
    """Allow as many descriptors as the system lets a process have: a connection needs ten."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Speed(StrEnum):
    RECORDED = "recorded"
    FULL = "full"


def replay(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A recording.")],
    to: DestinationOption,
    order: Annotated[
        str, typer.Option("--order", metavar="ORDER", help="Of connections: recorded, or seed:N for another.")
    ] = "recorded",
    speed: Annotated[Speed, typer.Option("--speed", help="No earlier than recorded, or as fast as can be.")] = (
        Speed.RECORDED
    ),
    channels: Annotated[
        int | None, typer.Option("--channels", metavar="N", min=0, help="How many multifd channels it has.")
    ] = None,
    limit: Annotated[
        float, typer.Option("--limit", metavar="SECONDS", min=0.1, help="How long it may show no progress.")
    ] = 30,
    connect: ConnectOption = 10,
    _verbose: Verbose = 0,
    _format: LogFormatOption = None,
    _: Debug = False,
) -> None:
    """Play a recording into a destination that waits for a migration.

    The destination must be started as the recorded one was, with the same number
    of channels: with fewer it would wait for ever, with more it would load
    silently wrong. Give [cyan]--channels[/] what it was started with, and a recording that
    does not fit is refused. A recording that is not complete always is.

      [cyan]migpool replay rec --to tcp:127.0.0.1:4444 --channels 2[/]

      [cyan]migpool replay rec --to unix:/run/m.sock --order seed:7 --speed full[/]

    Exit codes: 0 accepted, 1 not, 2 wrong usage, 130 cancelled.
    """
    import structlog

    from migpool.cli.interrupt import Interrupt
    from migpool.cli.logs import configure
    from migpool.streams.record.playable import playable
    from migpool.streams.record.replay import Replay
    from migpool.transport.address import Address

    invocation: Invocation = context.obj
    configure(invocation)
    seed = seed_of(order)
    address = Address.parse(to)
    recording = playable(directory, channels)
    with Interrupt(complain) as interrupt:
        play = Replay(
            recording,
            address,
            seed=seed,
            speed=speed.value,
            limit=limit,
            connect_limit=connect,
            stop=interrupt,
        )
        structlog.get_logger().info("order", connections=[connection.name for connection in play.order])
        outcome = play.run()
    if outcome.accepted:
        say(f"{directory}: {outcome.line} ({outcome.bytes} bytes sent)")
        return
    complain(f"{outcome.line} ({outcome.bytes} bytes sent)")
    raise typer.Exit(interrupt.exit_code if outcome.cancelled else 1)


def seed_of(order: str) -> int | None:
    """The seed that ``--order`` names; ``None`` for the recorded order."""
    from migpool.errors import UsageError

    if order == "recorded":
        return None
    word, _, number = order.partition(":")
    if word != "seed" or not number.isdecimal():
        raise UsageError(f"--order {order!r} is none: write recorded or seed:N")
    return int(number)
