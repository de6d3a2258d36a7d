"""The work of a switchover, as jobs: what is done for one device, from top to bottom.

This is the whole of it. Which thread does which part, and who waits, is not said here: the threading models decide
that.

A job makes an effect of a kind once, and changes its index from chunk to chunk: nothing is allocated in the data path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from migpool.core.buffers import Chunk, Conduit
from migpool.core.effects import (
    Acquire,
    AfterOthers,
    Credit,
    EndLane,
    EndLiveTurn,
    EndParts,
    EndTurn,
    IterateInto,
    KeepConfig,
    LoadConfig,
    Loaded,
    LoadPart,
    NextChunk,
    NextPart,
    ReadState,
    Release,
    SaveConfig,
    SavePart,
    SayLoaded,
    Send,
    SendAhead,
    SendConfig,
    SendPages,
    SendPart,
    SendSection,
    Steps,
    TakeConfig,
    TakePages,
    Turn,
    WriteState,
)
from migpool.core.machine import Slot
from migpool.wire.devicestate import described_config, version_of_described

if TYPE_CHECKING:
    from migpool.wire.rampacket import PagePacket


def save_state(slot: Slot, first: int = 0) -> Steps:
    """Save an iterable device: its state chunk by chunk, then its config, over the multifd channels.

    The thread that read a chunk also sends it, from the one buffer that the device reads into.

    Arguments:
        slot: the device.
        first: the index of its next chunk; more than 0 if some went over these channels while it ran.
    """
    chunk: Chunk | Conduit = yield Acquire(slot)
    read, credit, send = ReadState(slot, first, chunk), Credit(slot, first), Send(slot, first, chunk)
    limit = 0  # the first index that the destination had no room for, when it was asked last
    while (yield read):
        if read.index >= limit:
            limit = yield credit
        yield send
        read.index = credit.index = send.index = read.index + 1
    yield Release(slot, chunk)
    config: bytes = yield SaveConfig(slot, read.index)
    if read.index >= limit:
        yield credit
    yield SendConfig(slot, read.index, config)


def save_live(slot: Slot, first: int, wanted: int) -> Steps:
    """Save an iterable device for one round of pre-copy, while it runs; a chunk without a byte ends the round.

    Arguments:
        slot: the device.
        first: the index of its next chunk.
        wanted: about how many bytes to save; fewer if the device gives fewer.
    """
    chunk: Chunk = yield Acquire(slot)
    iterate, credit, send = IterateInto(slot, first, chunk), Credit(slot, first), Send(slot, first, chunk)
    moved = limit = 0
    while True:
        chunk.length = 0
        if moved < wanted:
            moved += yield iterate
        if credit.index >= limit:
            limit = yield credit
        length = chunk.length
        yield send
        iterate.index = credit.index = send.index = send.index + 1
        if not length:
            break
    yield Release(slot, chunk)
    yield EndLiveTurn(slot, send.index, moved)


def load_live(slot: Slot, first: int) -> Steps:
    """Load what :func:`save_live` saved in one round.

    Arguments:
        slot: the device.
        first: the index of its next chunk.
    """
    following = NextChunk(slot, first)
    chunk: Chunk = yield following
    write, loaded = WriteState(slot, first, chunk), Loaded(slot, first, chunk)
    while chunk.length:
        yield write
        yield loaded
        following.index = write.index = loaded.index = following.index + 1
        chunk = write.chunk = loaded.chunk = yield following
    yield loaded
    yield EndLiveTurn(slot, following.index + 1)


def save_lane(slot: Slot, lane: int) -> Steps:
    """Save an iterable device as one of several jobs: while this one sends what it has read, another one reads.

    Each has a buffer of its own; the device is read by one at a time.

    Arguments:
        slot: the device.
        lane: which of the device's jobs this is, from 0.
    """
    chunk: Chunk = yield Acquire(slot)
    turn, read, end = Turn(slot), ReadState(slot, 0, chunk), EndTurn(slot, 0, 0)
    credit, send = Credit(slot, 0), SendAhead(slot, 0, chunk, lane)
    limit = 0
    while (index := (yield turn)) >= 0:
        read.index = end.index = credit.index = send.index = index
        end.length = yield read
        yield end
        if not end.length:
            break
        if index >= limit:
            limit = yield credit
        yield send
    yield Release(slot, chunk)
    yield from _end_lane(slot, turn, credit)


def save_parts(slot: Slot, lane: int) -> Steps:
    """Save a device whose parts have tags, as one of several jobs: each takes what the others have not.

    Arguments:
        slot: the device.
        lane: which of the device's jobs this is, from 0.
    """
    chunk: Chunk = yield Acquire(slot)
    save, credit, send = SavePart(slot, chunk), Credit(slot, 0), SendAhead(slot, 0, chunk, lane)
    limit = 0
    while (yield save) is not None:
        credit.index, send.index = save.number, save.index
        if credit.index >= limit:
            limit = yield credit
        yield send
    yield Release(slot, chunk)
    yield from _end_lane(slot, save, credit)


def _end_lane(slot: Slot, turn: Turn | SavePart, credit: Credit) -> Steps:
    """One of several jobs has no more state to save; the last one saves the config."""
    index: int = yield EndLane(slot, turn)
    if index >= 0:
        config: bytes = yield SaveConfig(slot, index)
        credit.index = index
        yield credit
        yield SendConfig(slot, index, config)


def save_sections(slots: Iterable[Slot]) -> Steps:
    """Save the devices that are not iterable, one after the other, as sections of the main channel.

    What has a job of its own is only waited for and sent. An optional device that needs no section has none.
    """
    for slot in slots:
        kept = slot.device.config_job and not slot.device.early
        config: bytes | None = yield TakeConfig(slot) if kept else SaveConfig(slot)
        if config is not None:
            yield SendSection(slot, config)


def save_described(slot: Slot, size: int) -> Steps:
    """Save a device that is not iterable over the multifd channels: its version and config, in parts.

    Arguments:
        slot: the device.
        size: the most bytes of a part.
    """
    config: bytes = yield SaveConfig(slot)
    content = memoryview(described_config(slot.device.version, config))
    credit = Credit(slot, 0)
    for index, begin in enumerate(range(0, len(content), size)):
        credit.index = index
        yield credit
        yield SendPart(slot, index, content[begin : begin + size], last=begin + size >= len(content))


def save_pages(slot: Slot) -> Steps:
    """Save pages of the memory over the multifd channels, until none is left of this round.

    Several such jobs may share a round: each takes what the others have not.
    """
    index = 0
    packets: list[PagePacket] | None
    while (packets := (yield TakePages(slot, index))) is not None:
        yield SendPages(slot, index, packets)
        index += 1


def keep_config(slot: Slot) -> Steps:
    """Save one device that is not iterable, and keep its config for :func:`save_sections` to send."""
    config: bytes | None = yield SaveConfig(slot)
    yield KeepConfig(slot, config)


def load_state(slot: Slot, first: int = 0, *, keep: bool = False) -> Steps:
    """Load an iterable device: its chunks in the order of their index, then its config.

    Arguments:
        first: the index of its next chunk; more than 0 if some came over these channels while it ran.
        keep: have the config loaded by :func:`load_config`, once every iterable device has all its state.
    """
    following = NextChunk(slot, first)
    chunk: Chunk = yield following
    write, loaded = WriteState(slot, first, chunk), Loaded(slot, first, chunk)
    while not chunk.last:
        yield write
        yield loaded
        following.index = write.index = loaded.index = following.index + 1
        chunk = write.chunk = loaded.chunk = yield following
    config = bytes(chunk.payload)
    loaded.last = True
    yield loaded
    yield from _keep_or_load(LoadConfig(slot, config, loaded.index), keep=keep)


def load_parts(slot: Slot, *, keep: bool = False) -> Steps:
    """Load a device whose parts have tags, as one of several jobs: each takes what comes next.

    Arguments:
        slot: the device.
        keep: as for :func:`load_state`.
    """
    following = NextPart(slot)
    chunk: Chunk
    while chunk := (yield following):
        yield LoadPart(slot, following.index, chunk)
        yield Loaded(slot, following.index, chunk)
    last: Chunk | None = yield EndParts(slot, following)
    if last is not None:
        config = bytes(last.payload)
        yield Loaded(slot, last.index, last, last=True)
        yield from _keep_or_load(LoadConfig(slot, config, last.index), keep=keep)


def load_described(slot: Slot) -> Steps:
    """Load what :func:`save_described` sent, once the devices are loaded that must be before.

    The room of all but the last part is free as soon as that part is here; that of the last one only when the config is
    about to be loaded, so that no more devices' configs lie about than were given room.
    """
    following = NextChunk(slot, 0)
    content = bytearray()
    while True:
        chunk: Chunk = yield following
        content += chunk.payload
        if chunk.last:
            break
        yield Loaded(slot, following.index, chunk)
        following.index += 1
    if slot.after:
        yield AfterOthers(slot, following.index)
    yield Loaded(slot, following.index, chunk, last=True)
    version, config = version_of_described(content)
    yield from _load_config(LoadConfig(slot, config, following.index, version))


def load_config(slot: Slot) -> Steps:
    """Load the config that :func:`load_state` kept."""
    take = TakeConfig(slot)
    config: bytes = yield take
    yield from _load_config(LoadConfig(slot, config, take.index))


def load_section(slot: Slot, config: bytes) -> Steps:
    """Load a device that is not iterable, from its section of the main channel."""
    if slot.after:
        yield AfterOthers(slot)
    yield from _load_config(LoadConfig(slot, config))


def _keep_or_load(load: LoadConfig, *, keep: bool) -> Steps:
    """The end of a device's state: its config is loaded, or kept for :func:`load_config`."""
    if keep:
        yield KeepConfig(load.slot, load.config, load.index)
    else:
        yield from _load_config(load)


def _load_config(load: LoadConfig) -> Steps:
    yield load
    if load.slot.awaited:
        yield SayLoaded(load.slot)
