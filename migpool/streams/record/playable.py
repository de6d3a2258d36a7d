"""What must be known of a recording before it is played, and whether it can be played at all.

A real destination cannot tell a recording that lacks something: with too few channels it waits for ever, with too many
it loads silently wrong. So everything that can be checked is checked before the first connection is opened.

What was recorded of a migration that succeeded can be played, whatever else happened: that the recorder was ended
before the connections were, or that strangers came. The destination's SHUT 0 proves it; without a return path, the
channels' contents do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from migpool.errors import ProtocolError, UsageError
from migpool.streams.record.channels import DeviceKey, MainSummary, answers, packets, pages_beside, summarise
from migpool.streams.record.index import Connection, Index, Role, beginning, load
from migpool.wire.returnpath import Shut, SwitchoverAck
from migpool.wire.stream import POSTCOPY_RESUMED, TLS_HANDSHAKE


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """What a multifd channel carries.

    Attributes:
        connection: its connection.
        first_device: where its first packet with device state begins; ``None`` without one.
        devices: whose state it carries.
        largest: bytes of the longest chunk of device state.
        chunks: one more than the greatest index of a chunk of device state.
        syncs: how many SYNC packets there are.
        configs: the devices whose config it carries.
    """

    connection: Connection
    first_device: int | None
    devices: frozenset[DeviceKey]
    largest: int
    chunks: int
    syncs: int
    configs: frozenset[DeviceKey]


@dataclass(frozen=True, slots=True)
class Playable:
    """A recording that can be played.

    Attributes:
        directory: where it is.
        index: its index.
        main: the main channel's connection.
        summary: what the main channel says.
        channels: the multifd channels, by their numbers.
        preempt: the preempt channel of a postcopy, if there was one.
        acknowledged: the recorded destination acknowledged the switchover, so the source may have waited for that.
        answered: the recorded destination had a return path, and said SHUT on it.
    """

    directory: Path
    index: Index
    main: Connection
    summary: MainSummary
    channels: tuple[ChannelPlan, ...]
    preempt: Connection | None
    acknowledged: bool
    answered: bool

    @property
    def connections(self) -> list[Connection]:
        """What is to be opened, in the recorded order: no stranger's connections."""
        ours = {self.main.number, *(plan.connection.number for plan in self.channels)}
        if self.preempt is not None:
            ours.add(self.preempt.number)
        return [one for one in self.index.connections if one.number in ours]


def playable(directory: Path, channels: int | None) -> Playable:
    """Check a recording.

    Arguments:
        directory: the recording.
        channels: how many multifd channels the destination has, if that is known.

    Raises:
        UsageError: it is no recording, it lacks something, or the number of channels is another.
    """
    index = load(directory)
    others = [one for one in index.connections if one.role is Role.UNKNOWN]
    for one in others:
        first = beginning(directory, one)
        if first.startswith(POSTCOPY_RESUMED):
            raise UsageError(
                f"{directory}: on {one.name} a postcopy was resumed after a break, for the destination alone that had "
                "what came before it: no other one can take it"
            )
        if first.startswith(TLS_HANDSHAKE):
            raise UsageError(
                f"{directory}: {one.name} is TLS (16 03), which was agreed on for that once and cannot be played to "
                "another destination: record without tls-creds"
            )
    main = _main(directory, index)
    summary = summarise(directory / main.source.file)
    said = [message for _, message in answers(directory, main, extension=summary.credited)]
    numbers = [one.channel for one in index.multifd]
    if numbers != list(range(len(numbers))):
        raise UsageError(f"{directory} has the multifd channels {numbers}: there must be each from 0 on, once")
    if lost := [one.name for one in index.multifd if not one.source.recorded]:
        raise UsageError(f"{directory}: nothing of {lost[0]} was recorded: {index.reason or 'nothing passed'}")
    if channels is not None and channels != len(numbers):
        raise UsageError(
            f"{directory} has {len(numbers)} multifd channels and the destination {channels}: it would wait for ever "
            "or load silently wrong; give it the recording's number"
        )
    shut = next((message.error for message in reversed(said) if isinstance(message, Shut)), None)
    if not index.complete and not _recorded(main, *index.multifd):
        raise UsageError(f"{directory} is not complete, and a destination could not tell: {index.reason}")
    if not summary.whole and shut != 0:  # a postcopy has devices in a package, and no description of them
        if not index.complete:
            raise UsageError(f"{directory} is not complete, and a destination could not tell: {index.reason}")
        raise UsageError(f"{directory}: the main channel was cut short: {summary.trouble or 'it has no end'}")
    plans = tuple(_plan(directory, one, summary.page_size) for one in index.multifd)
    if not index.complete and shut != 0 and not _carried(summary, plans):
        raise UsageError(f"{directory} is not complete, and a destination could not tell: {index.reason}")
    acknowledged = any(isinstance(message, SwitchoverAck) for message in said)
    preempt = _preempt(directory, others, summary, succeeded=shut == 0)
    return Playable(directory, index, main, summary, plans, preempt, acknowledged, shut is not None)


def _main(directory: Path, index: Index) -> Connection:
    """The main channel; of several, the one on which the destination said that the machine runs."""
    mains = [one for one in index.connections if one.role is Role.MAIN]
    if len(mains) > 1:
        mains = [one for one in mains if _runs(directory, one)] or mains
    if len(mains) != 1:
        raise UsageError(f"{directory} has {len(mains)} main channels instead of one: record one migration at a time")
    if not mains[0].source.recorded:
        raise UsageError(f"{directory}: nothing of the main channel was recorded: {index.reason or 'nothing passed'}")
    return mains[0]


def _runs(directory: Path, main: Connection) -> bool:
    """Whether the destination said that the machine runs."""
    said = answers(directory, main, extension=True)
    return any(isinstance(message, Shut) and not message.error for _, message in said)


def _recorded(*connections: Connection) -> bool:
    """Whether the disk took all that passed."""
    return all(one.source.recorded == one.source.bytes for one in connections)


def _carried(summary: MainSummary, plans: Sequence[ChannelPlan]) -> bool:
    """Whether the channels have all that they have of a whole migration."""
    devices = frozenset[DeviceKey]().union(*(plan.devices for plan in plans))
    configs = frozenset[DeviceKey]().union(*(plan.configs for plan in plans))
    syncs = {plan.syncs for plan in plans}
    return devices == configs and len(syncs) < 2 and all(count >= max(1, summary.flushes) for count in syncs)


def _preempt(
    directory: Path, others: Sequence[Connection], summary: MainSummary, *, succeeded: bool
) -> Connection | None:
    """The preempt channel, among connections that begin as neither a main channel nor a multifd channel.

    Raises:
        UsageError: one of these is neither that nor a stranger's.
    """
    found: Connection | None = None
    for one in others:
        if not one.source.bytes:
            if summary.postcopy:
                found = found or one
            continue  # else somebody looked whether somebody listens
        if summary.postcopy:
            try:
                pages_beside(directory / one.source.file, summary.page_size, summary.blocks)
                begins_so = True
            except ProtocolError as error:
                begins_so = error.offset > 0  # it may have been cut short, of which the destination did not die
            if begins_so:
                found = one
                continue
        if not succeeded:
            raise UsageError(f"{directory}: {one.name} is neither a main channel nor a multifd channel")
    return found


def _plan(directory: Path, connection: Connection, page_size: int) -> ChannelPlan:
    first: int | None = None
    devices: set[DeviceKey] = set()
    configs: set[DeviceKey] = set()
    largest = chunks = syncs = 0
    try:
        for packet in packets(directory / connection.source.file, page_size):
            syncs += packet.sync
            if packet.device is not None:
                if packet.config:
                    configs.add(packet.device)
                first = packet.offset if first is None else first
                devices.add(packet.device)
                largest = max(largest, packet.payload)
                chunks = max(chunks, packet.index + 1)
    except ProtocolError as error:
        raise UsageError(f"{directory}: {connection.name} is damaged: {error}") from None
    return ChannelPlan(connection, first, frozenset(devices), largest, chunks, syncs, frozenset(configs))
