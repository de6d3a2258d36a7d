"""What ``send`` and ``receive`` do when the machine is a stream file and not a scenario's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.invocation import Invocation, complain, say
from migpool.cli.options import complete_scenario
from migpool.errors import UsageError

_PANEL = "Stream files"

OptionalScenario = Annotated[
    str | None,
    typer.Argument(
        metavar="SCENARIO",
        help="A built-in scenario ([cyan]migpool scenario list[/]) or the path of a TOML file.",
        autocompletion=complete_scenario,
        show_default=False,
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Store the machine of any source, QEMU too, as a stream file instead of running it; no SCENARIO.",
        rich_help_panel=_PANEL,
    ),
]
ChannelsOption = Annotated[
    int,
    typer.Option(
        "--channels",
        metavar="N",
        min=0,
        max=255,
        help="Multifd channels, as many as the other side has; 0: no multifd.",
        rich_help_panel=_PANEL,
    ),
]
IdleOption = Annotated[
    float,
    typer.Option(
        "--idle",
        metavar="SECONDS",
        min=0.1,
        help="How long the other side may take or say nothing.",
        rich_help_panel=_PANEL,
    ),
]
UuidOption = Annotated[
    str | None,
    typer.Option(
        "--uuid",
        metavar="UUID",
        help="The machine's uuid, if the file does not say it: multifd needs it.",
        rich_help_panel=_PANEL,
    ),
]
NoReturnPath = Annotated[
    bool,
    typer.Option(
        "--no-return-path",
        help="Do not ask the destination whether the machine runs.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


def check_scenario_options(channels: int, uuid: str | None = None, no_return_path: bool = False) -> None:
    """Refuse what only stream files need.

    Raises:
        UsageError: one of them was given with a scenario.
    """
    for option, given in (("--channels", channels), ("--uuid", uuid), ("--no-return-path", no_return_path)):
        if given:
            raise UsageError(f"{option} is for stream files: a scenario says that itself")


def is_stream_file(name: str) -> bool:
    """Whether ``name`` is a file that begins as a stream does."""
    path = Path(name)
    if not path.is_file():
        return False
    from migpool.streams.file.fromfile import begins_as_a_stream

    return begins_as_a_stream(path)


def receive_stream_file(invocation: Invocation, path: Path, listen: str, channels: int, idle: float) -> int:
    """Store one machine, and return the exit code."""
    from migpool.cli.files import check_writable
    from migpool.cli.interrupt import Interrupt
    from migpool.cli.logs import announce, configure
    from migpool.errors import Cancelled
    from migpool.streams.file.tofile import receive_file
    from migpool.transport.address import Address

    configure(invocation)
    address = Address.parse(listen)
    check_writable(path)
    with Interrupt(complain) as interrupt:
        try:
            stored = receive_file(
                path,
                address,
                channels,
                limit=idle,
                cancelled=interrupt,
                listening=lambda where: announce(invocation, "listening on", address=str(where)),
            )
        except Cancelled as error:
            complain(str(error))
            return interrupt.exit_code
    told = "the source knows" if stored.acknowledged else "the source has no return path"
    say(f"{path}: machine {stored.machine}, {stored.pages} pages received, {stored.size} bytes stored; {told}")
    return 0


def send_stream_file(
    invocation: Invocation, path: Path, to: str, channels: int, *, uuid: str | None, return_path: bool, idle: float
) -> int:
    """Send a file, and return the exit code.

    Raises:
        UsageError: the address or the uuid is none.
    """
    from migpool.cli.interrupt import Interrupt
    from migpool.cli.logs import configure
    from migpool.errors import Cancelled
    from migpool.streams.file.fromfile import parse_uuid, send_file
    from migpool.transport.address import Address

    configure(invocation)
    address = Address.parse(to)
    number = None if uuid is None else parse_uuid(uuid)
    with Interrupt(complain) as interrupt:
        try:
            sent = send_file(
                path, address, channels, uuid=number, return_path=return_path, limit=idle, cancelled=interrupt
            )
        except Cancelled as error:
            complain(str(error))
            return interrupt.exit_code
    ends = "it runs at the destination" if sent.confirmed else "nobody has asked whether it runs at the destination"
    say(f"{path}: machine {sent.machine} sent, {sent.pages} pages; {ends}")
    return 0
