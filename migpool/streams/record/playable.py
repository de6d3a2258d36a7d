"""What must be known of a recording before it is played, and whether it can be played at all.

A real destination cannot tell a recording that lacks something: with too few channels it waits for ever, with too many
it loads silently wrong. So everything that can be checked is checked before the first connection is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from migpool.errors import ProtocolError, UsageError
from migpool.streams.record.channels import DeviceKey, MainSummary, answers, packets, summarise
from migpool.streams.record.index import Connection, Index, Role, load
from migpool.wire.returnpath import Shut, SwitchoverAck


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """What a multifd channel carries.

    Attributes:
        connection: its connection.
        first_device: where its first packet with device state begins; ``None`` without one.
        devices: whose state it carries.
        largest: bytes of the longest chunk of device state.
    """

    connection: Connection
    first_device: int | None
    devices: frozenset[DeviceKey]
    largest: int


@dataclass(frozen=True, slots=True)
class Playable:
    """A recording that can be played.

    Attributes:
        directory: where it is.
        index: its index.
        main: the main channel's connection.
        summary: what the main channel says.
        channels: the multifd channels, by their numbers.
        acknowledged: the recorded destination acknowledged the switchover, so the source may have waited for that.
        answered: the recorded destination had a return path, and said SHUT on it.
    """

    directory: Path
    index: Index
    main: Connection
    summary: MainSummary
    channels: tuple[ChannelPlan, ...]
    acknowledged: bool
    answered: bool


def playable(directory: Path, channels: int | None) -> Playable:
    """Check a recording.

    Arguments:
        directory: the recording.
        channels: how many multifd channels the destination has, if that is known.

    Raises:
        UsageError: it is no recording, it lacks something, or the number of channels is another.
    """
    index = load(directory)
    if not index.complete:
        raise UsageError(f"{directory} is not complete, and a destination could not tell: {index.reason}")
    strange = [one for one in index.connections if one.role is Role.UNKNOWN]
    if strange:
        raise UsageError(f"{directory}: {strange[0].name} is neither a main channel nor a multifd channel")
    mains = [one for one in index.connections if one.role is Role.MAIN]
    if len(mains) != 1:
        raise UsageError(f"{directory} has {len(mains)} main channels instead of one: record one migration at a time")
    numbers = [one.channel for one in index.multifd]
    if numbers != list(range(len(numbers))):
        raise UsageError(f"{directory} has the multifd channels {numbers}: there must be each from 0 on, once")
    if channels is not None and channels != len(numbers):
        raise UsageError(
            f"{directory} has {len(numbers)} multifd channels and the destination {channels}: it would wait for ever "
            "or load silently wrong; give it the recording's number"
        )
    main = mains[0]
    summary = summarise(directory / main.source.file)
    if not summary.whole:
        raise UsageError(f"{directory}: the main channel was cut short: {summary.trouble or 'it has no end'}")
    plans = tuple(_plan(directory, one, summary.page_size) for one in index.multifd)
    said = [message for _, message in answers(directory, main, extension=summary.credited)]
    return Playable(
        directory,
        index,
        main,
        summary,
        plans,
        any(isinstance(message, SwitchoverAck) for message in said),
        any(isinstance(message, Shut) for message in said),
    )


def _plan(directory: Path, connection: Connection, page_size: int) -> ChannelPlan:
    first: int | None = None
    devices: set[DeviceKey] = set()
    largest = 0
    try:
        for packet in packets(directory / connection.source.file, page_size):
            if packet.device is not None:
                first = packet.offset if first is None else first
                devices.add(packet.device)
                largest = max(largest, packet.payload)
    except ProtocolError as error:
        raise UsageError(f"{directory}: {connection.name} is damaged: {error}") from None
    return ChannelPlan(connection, first, frozenset(devices), largest)
