"""The system calls alone: what Python costs before anything of migpool is there.

A thread a channel at both ends. At the source each has its share of the devices and moves one after the other: read,
then header and chunk in one call. At the destination: header, chunk, write. So a device's chunks are in order by
themselves. Nothing is parked, granted, recorded or checked, and nothing can be cancelled. What is missing from here to
C is the price of the interpreter; what is missing from a migration to here is that of migpool.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat

from benchmarks.datapath.bare import accepted, connected, together
from benchmarks.datapath.devices import BenchmarkDevice, FromNothing, ToNothing
from benchmarks.datapath.failure import BenchmarkFailure
from migpool.core.buffers import Chunk
from migpool.migration.settings import Settings
from migpool.transport.address import Address
from migpool.wire.devicestate import HEADER_SIZE

__all__ = ["receive", "send"]

WHICH = struct.Struct("=II")
"""The device's place and the chunk's length: all that a destination needs that checks nothing."""


def send(devices: Sequence[BenchmarkDevice], settings: Settings, address: Address) -> int:
    """Send the state of ``devices``, a thread a channel.

    Returns:
        CLOCK_MONOTONIC in nanoseconds when that began.

    Raises:
        BenchmarkFailure: a chunk was not sent whole.
    """
    with contextlib.ExitStack() as stack:

        def save(first: int, channel: socket.socket) -> None:
            header = bytearray(HEADER_SIZE)
            chunk = Chunk(settings.chunk, touched=True)
            stack.callback(chunk.close)
            buffer, pack, sendmsg = chunk.buffer, WHICH.pack_into, channel.sendmsg
            whole: list[bytearray | memoryview] = [header, buffer]
            for place in range(first, len(devices), settings.channels):
                for length in _reads(devices[place], buffer):
                    pack(header, 0, place, length)
                    if sendmsg(whole if length == len(buffer) else (header, buffer[:length])) != HEADER_SIZE + length:
                        raise BenchmarkFailure("a chunk was not sent whole")

        channels = connected(settings, address, stack)
        began, _ = together([partial(save, number, channel) for number, channel in enumerate(channels)])
        return began


def receive(
    devices: Sequence[BenchmarkDevice], settings: Settings, address: Address, listening: Callable[[Address], None]
) -> tuple[int, int]:
    """Receive what is sent for ``devices``, a thread a channel.

    Returns:
        CLOCK_MONOTONIC in nanoseconds when the last of it had been written, and how many bytes it was without headers.

    Raises:
        BenchmarkFailure: a chunk did not come whole.
    """
    with contextlib.ExitStack() as stack:
        counts: list[int] = []

        def take(channel: socket.socket) -> None:
            header = bytearray(HEADER_SIZE)
            chunk = Chunk(settings.chunk, touched=True)
            stack.callback(chunk.close)
            buffer, unpack, recv_into = chunk.buffer, WHICH.unpack_from, channel.recv_into
            writes = [None if isinstance(device, ToNothing) else device.load_state for device in devices]
            moved = 0
            while recv_into(header, HEADER_SIZE, socket.MSG_WAITALL) == HEADER_SIZE:
                place, length = unpack(header)
                if recv_into(buffer, length, socket.MSG_WAITALL) != length:
                    raise BenchmarkFailure("a chunk has not come whole")
                write = writes[place]
                if write is not None:
                    write(buffer if length == len(buffer) else buffer[:length])
                moved += length
            counts.append(moved)

        channels = accepted(settings, address, listening, stack)
        _, ended = together([partial(take, channel) for channel in channels])
        return ended, sum(counts)


def _reads(device: BenchmarkDevice, buffer: memoryview) -> Iterable[int]:
    """The lengths of the device's chunks, each read into ``buffer`` when it is asked for."""
    if isinstance(device, FromNothing):
        return repeat(len(buffer), device.size // len(buffer))
    return iter(partial(device.save_state, buffer), 0)
