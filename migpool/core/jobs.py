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
    Credit,
    KeepConfig,
    LoadConfig,
    Loaded,
    NextChunk,
    ReadState,
    Release,
    SaveConfig,
    Send,
    SendPages,
    SendSection,
    Steps,
    TakeConfig,
    TakePages,
    WriteState,
)
from migpool.core.machine import Slot

if TYPE_CHECKING:
    from migpool.wire.rampacket import PagePacket


def save_state(slot: Slot) -> Steps:
    """Save an iterable device: its state chunk by chunk, then its config, over the multifd channels.

    The thread that read a chunk also sends it, from the one buffer that the device reads into.
    """
    chunk: Chunk | Conduit = yield Acquire(slot)
    read, credit, send = ReadState(slot, 0, chunk), Credit(slot, 0), Send(slot, 0, chunk)
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
    yield Send(slot, read.index, config, last=True)


def save_sections(slots: Iterable[Slot]) -> Steps:
    """Save the devices that are not iterable, one after the other, as sections of the main channel.

    What has a job of its own is only waited for and sent.
    """
    for slot in slots:
        config: bytes = yield TakeConfig(slot) if slot.device.config_job else SaveConfig(slot)
        yield SendSection(slot, config)


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
    config: bytes = yield SaveConfig(slot)
    yield KeepConfig(slot, config)


def load_state(slot: Slot, *, keep: bool = False) -> Steps:
    """Load an iterable device: its chunks in the order of their index, then its config.

    Arguments:
        keep: have the config loaded by :func:`load_config`, once every iterable device has all its state.
    """
    following = NextChunk(slot, 0)
    chunk: Chunk = yield following
    write, loaded = WriteState(slot, 0, chunk), Loaded(slot, 0, chunk)
    while not chunk.last:
        yield write
        yield loaded
        following.index = write.index = loaded.index = following.index + 1
        chunk = write.chunk = loaded.chunk = yield following
    config = bytes(chunk.payload)
    loaded.last = True
    yield loaded
    yield KeepConfig(slot, config, loaded.index) if keep else LoadConfig(slot, config, loaded.index)


def load_config(slot: Slot) -> Steps:
    """Load the config that :func:`load_state` kept."""
    take = TakeConfig(slot)
    config: bytes = yield take
    yield LoadConfig(slot, config, take.index)


def load_section(slot: Slot, config: bytes) -> Steps:
    """Load a device that is not iterable, from its section of the main channel."""
    yield LoadConfig(slot, config)
