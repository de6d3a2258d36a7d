"""``migpool replay``: a recording, into a destination."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import Invocation, complain, say
from migpool.cli.options import ConnectOption, Debug, DestinationOption, LogFormatOption, Verbose


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
