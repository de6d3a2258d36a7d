"""The socket leg alone: what migpool's channels do with a chunk, and nothing around it.

At the source a thread a device sends through the group of channels; at the destination a thread a channel receives and
reads the header. There are no devices' calls, no jobs, no credits, no order, no main channel. So this says what the
calls of ``migpool.transport`` and ``migpool.wire`` cost beside C's; the row of a whole migration says what the rest
adds, and that of the calls alone (``calls.py``) what Python costs before anything of migpool is there.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.datapath.bare import accepted, connected, idle, together
from benchmarks.datapath.devices import BenchmarkDevice
from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.machine import Machine, Slot
from migpool.migration.settings import Settings
from migpool.transport.address import Address
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.sockets import read_exactly
from migpool.wire.devicestate import HEADER_SIZE, DeviceStateHeader, DeviceStateParser

__all__ = ["receive", "send"]


def send(devices: Sequence[BenchmarkDevice], settings: Settings, address: Address) -> int:
    """Send as many bytes as ``devices`` have, a thread each, from one buffer each.

    Returns:
        CLOCK_MONOTONIC in nanoseconds when that began.

    Raises:
        BenchmarkFailure: they could not be sent.
    """
    with contextlib.ExitStack() as stack:
        group = ChannelGroup(connected(settings, address, stack), _unnoted, CancelSwitch())

        def save(slot: Slot, device: BenchmarkDevice) -> None:
            header = DeviceStateHeader(device.idstr)
            chunk = Chunk(settings.chunk, touched=True)
            stack.callback(chunk.close)
            buffers: list[bytearray | memoryview] = [header.buffer, chunk.buffer]
            for index in range(device.size // settings.chunk):
                header.pack(index, settings.chunk)
                group.send(slot.name, index, buffers, HEADER_SIZE + settings.chunk)

        slots = Machine("bench", devices).slots
        began, _ = together([partial(save, slot, device) for slot, device in zip(slots, devices, strict=True)])
        return began


def _unnoted(name: str, index: int, since: int) -> None:
    """A wait for an idle channel is not looked at here."""
    del name, index, since


def receive(
    devices: Sequence[BenchmarkDevice], settings: Settings, address: Address, listening: Callable[[Address], None]
) -> tuple[int, int]:
    """Receive what is sent for ``devices``, a thread a channel.

    Returns:
        CLOCK_MONOTONIC in nanoseconds when the last of it had come, and how many bytes it was without headers.

    Raises:
        BenchmarkFailure: they did not come.
    """
    with contextlib.ExitStack() as stack:
        channels = accepted(settings, address, listening, stack)
        parser = DeviceStateParser({(device.idstr, 0): device for device in devices}, limit=settings.chunk)
        counts: list[int] = []

        def take(channel: socket.socket) -> None:
            header = bytearray(HEADER_SIZE)
            chunk = Chunk(settings.chunk, touched=True)
            stack.callback(chunk.close)
            moved = 0
            while read_exactly(channel, header, HEADER_SIZE, idle):
                _, _, size, _ = parser.parse(header)
                moved += read_exactly(channel, chunk.buffer, size, idle)
            counts.append(moved)

        _, ended = together([partial(take, channel) for channel in channels])
        return ended, sum(counts)
