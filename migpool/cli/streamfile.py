"""What ``send`` and ``receive`` do when the machine is a stream file and not a scenario's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.interrupt import Interrupt
from migpool.cli.invocation import Invocation
from migpool.cli.output import check_writable, complain, noting, say
from migpool.errors import Cancelled, UsageError
from migpool.units import count_of


class SwitchoverAck(StrEnum):
    """Whether a destination that stores acknowledges a switchover that no device asks for."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


_option = partial(typer.Option, rich_help_panel="Stream files")

StoreOption = Annotated[
    Path | None,
    _option(
        "--store",
        metavar="FILE",
        help="Store the machine of any source, QEMU too, as a stream file instead of running it; no SCENARIO.",
    ),
]
ChannelsOption = Annotated[
    int,
    _option(
        "--channels",
        metavar="N",
        min=0,
        max=255,
        help="Multifd channels, as many as the other side has; 0: no multifd.",
    ),
]
IdleOption = Annotated[
    float, _option("--idle", metavar="SECONDS", min=0.1, help="How long the other side may take or say nothing.")
]
SwitchoverAckOption = Annotated[
    SwitchoverAck,
    _option(
        "--switchover-ack",
        help="With --store, acknowledge a switchover that no device asks for: auto as the version in the machine's "
        "type says (up to 11.0 yes; later, or without one, no). A source with the capability switchover-ack waits for "
        "it; one of QEMU 11.1 or later fails of it.",
    ),
]
UuidOption = Annotated[
    str | None,
    _option("--uuid", metavar="UUID", help="The machine's uuid, if the file does not say it: multifd needs it."),
]
NoReturnPath = Annotated[
    bool,
    _option("--no-return-path", help="Do not ask the destination whether the machine runs.", show_default=False),
]


_ACKNOWLEDGES = {SwitchoverAck.AUTO: None, SwitchoverAck.YES: True, SwitchoverAck.NO: False}


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Ctrl-C and SIGTERM cancel what is done in it; then the command ends with the signal's exit code."""
    with Interrupt(complain) as interrupt:
        try:
            yield interrupt
        except Cancelled as error:
            complain(str(error))
            raise typer.Exit(interrupt.exit_code) from None


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


def receive_stream_file(
    invocation: Invocation,
    path: Path,
    listen: str,
    channels: int,
    idle: float,
    switchover_ack: SwitchoverAck,
    *,
    tls: str,
    insecure: bool,
) -> None:
    """Store one machine.

    Raises:
        UsageError: the address is none, or should not be listened on; the credentials cannot be used.
    """
    from migpool.cli.logs import announce, configure
    from migpool.streams.file.tofile import receive_file
    from migpool.transport.address import Address
    from migpool.transport.credentials import credentials

    configure(invocation)
    address = Address.parse(listen)
    ours = credentials(tls, "server")
    check_writable(path)
    with interruptible() as interrupt:
        stored = receive_file(
            path,
            address,
            channels,
            limit=idle,
            cancelled=interrupt,
            listening=lambda where: announce(invocation, "listening on", address=str(where)),
            credentials=ours,
            insecure=insecure,
            acknowledge=_ACKNOWLEDGES[switchover_ack],
            noted=noting(),
        )
    told = "the source knows" if stored.acknowledged else "the source has no return path"
    pages = count_of(stored.pages, "page")
    say(f"{path}: machine {stored.machine}, {pages} received, {stored.size} bytes stored; {told}")


def send_stream_file(
    invocation: Invocation,
    path: Path,
    to: str,
    channels: int,
    *,
    uuid: str | None,
    return_path: bool,
    idle: float,
    tls: str,
    tls_hostname: str,
    insecure: bool,
) -> None:
    """Send a file.

    Raises:
        UsageError: the address or the uuid is none; the credentials cannot be used.
    """
    from migpool.cli.logs import configure
    from migpool.streams.file.fromfile import parse_uuid, send_file
    from migpool.transport.address import Address
    from migpool.transport.credentials import credentials

    configure(invocation)
    address = Address.parse(to)
    ours = credentials(tls, "client", tls_hostname)
    number = None if uuid is None else parse_uuid(uuid)
    with interruptible() as interrupt:
        sent = send_file(
            path,
            address,
            channels,
            uuid=number,
            return_path=return_path,
            limit=idle,
            cancelled=interrupt,
            credentials=ours,
            anybody=insecure,
        )
    ends = "it runs at the destination" if sent.confirmed else "nobody has asked whether it runs at the destination"
    say(f"{path}: machine {sent.machine} sent, {count_of(sent.pages, 'page')}; {ends}")
