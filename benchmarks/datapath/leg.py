"""The socket leg alone: what migpool's channels do with a chunk, and nothing around it.

At the source a thread a device sends through the group of channels; at the destination a thread a channel receives and
reads the header. There are no devices' calls, no jobs, no credits, no order, no main channel. So this says what the
calls of ``migpool.channel`` and ``migpool.wire`` cost beside C's; the row of a whole migration says what the rest adds.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from benchmarks.datapath.devices import BenchmarkDevice
from benchmarks.datapath.failure import BenchmarkFailure
from migpool.cancel import CancelSwitch
from migpool.channel.address import Address
from migpool.channel.multifd import ChannelGroup
from migpool.channel.sockets import connect, listen, prepare, read_exactly
from migpool.machine import Machine, Slot
from migpool.memory import Chunk
from migpool.settings import Settings
from migpool.trace import Tracer
from migpool.wire.devicestate import HEADER_SIZE, DeviceStateHeader, DeviceStateParser

__all__ = ["receive", "send"]


def send(devices: Sequence[BenchmarkDevice], settings: Settings, address: Address) -> int:
    """Send as many bytes as ``devices`` have, a thread each, from one buffer each.

    Returns:
        CLOCK_MONOTONIC in nanoseconds when that began.

    Raises:
        BenchmarkFailure: they could not be sent.
    """
    deadline = time.monotonic() + settings.peer_limit
    with contextlib.ExitStack() as stack:
        channels = []
        for _ in range(settings.channels):
            channel = stack.enter_context(connect(address, deadline, settings.peer_limit))
            prepare(channel, limit=settings.peer_limit, tick=settings.tick, congestion=settings.congestion)
            channels.append(channel)
        group = ChannelGroup(channels, Tracer(), CancelSwitch())

        def save(slot: Slot, device: BenchmarkDevice) -> None:
            header = DeviceStateHeader(device.idstr)
            chunk = Chunk(settings.chunk, touched=True)
            stack.callback(chunk.close)
            buffers = [header.buffer, chunk.buffer]
            for index in range(device.size // settings.chunk):
                header.pack(index, settings.chunk)
                group.send(slot, index, buffers, HEADER_SIZE + settings.chunk)

        slots = Machine("bench", devices).slots
        began = time.monotonic_ns()
        _together([partial(save, slot, device) for slot, device in zip(slots, devices, strict=True)])
        return began


def receive(
    devices: Sequence[BenchmarkDevice], settings: Settings, address: Address, listening: Callable[[Address], None]
) -> tuple[int, int]:
    """Receive what is sent for ``devices``, a thread a channel.

    Returns:
        CLOCK_MONOTONIC in nanoseconds when the last of it had come, and how many bytes it was without headers.

    Raises:
        BenchmarkFailure: they did not come.
    """
    listener, bound = listen(address, settings.channels)
    with listener, contextlib.ExitStack() as stack:
        listener.settimeout(settings.accept_limit)
        listening(bound)
        parser = DeviceStateParser({(device.idstr, 0): device for device in devices}, limit=settings.chunk)

        counts: list[int] = []

        def take(channel: socket.socket) -> None:
            header = bytearray(HEADER_SIZE)
            chunk = Chunk(settings.chunk, touched=True)
            stack.callback(chunk.close)
            moved = 0
            while read_exactly(channel, header, HEADER_SIZE, _idle):
                _, _, size, _ = parser.parse(header)
                moved += read_exactly(channel, chunk.buffer, size, _idle)
            counts.append(moved)

        channels = list(_accepted(listener, settings, stack))
        _together([partial(take, channel) for channel in channels])
        return time.monotonic_ns(), sum(counts)


def _accepted(listener: socket.socket, settings: Settings, stack: contextlib.ExitStack) -> Iterator[socket.socket]:
    for _ in range(settings.channels):
        channel = stack.enter_context(listener.accept()[0])
        channel.settimeout(None)
        prepare(channel, limit=settings.peer_limit, tick=settings.peer_limit, congestion=settings.congestion)
        yield channel


def _idle() -> None:
    raise BenchmarkFailure("nothing has come from the source")


def _together(bodies: Sequence[Callable[[], None]]) -> None:
    """Run each on a thread of its own, wait for all, and raise the first error."""
    errors: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 -- it is raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
