"""A payload that goes from its channel into a device by splice(2), and through no buffer of ours.

Guarantees:

1. Each payload leaves the channel once: either ``move`` takes it to the device, or ``settle`` into the chunk's buffer.
2. When ``settle`` has returned, the channel stands at the next packet, whoever moved the payload; unless ``broken``.
3. The channel's thread waits for another thread only while that one moves the payload.
4. A wait for the source ends as one of ``read_exactly`` does; one for the device, as its ``load_state`` would.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from threading import Lock

from migpool.core.buffers import Chunk, Conduit
from migpool.errors import PeerGone
from migpool.transport.sockets import read_exactly, waited


class SplicedChunk:
    """One channel's way past the buffers. Its own thread offers and settles; whoever loads the device moves.

    Arguments:
        channel: the connection.
        room: how many bytes of a payload are between socket and device at most, if the system allows as many.
        idle: called at every tick of a wait for the source, with what is waited for; raises when it should not go on.

    Attributes:
        broken: a payload was moved in part only; nothing that follows can be read.
    """

    def __init__(self, channel: socket.socket, room: int, idle: Callable[[str], None]) -> None:
        self._channel = channel
        self._idle = idle
        self._pipe = Conduit(room)
        self._lock = Lock()
        self._chunk: Chunk | None = None  # what is in the channel still
        self._name = ""
        self._index = -1
        self._target = -1
        self.broken = False

    def offer(self, name: str, chunk: Chunk, target: int) -> None:
        """The payload of ``chunk`` is next in the channel; from now on it may be moved into the descriptor ``target``,
        which is that of the device called ``name``."""
        with self._lock:
            self._chunk, self._name, self._index, self._target = chunk, name, chunk.index, target

    def move(self, chunk: Chunk) -> bool:
        """Move the chunk's payload into the device, on the calling thread.

        Returns:
            Whether it was still in the channel; if not, it is in the chunk's buffer.

        Raises:
            PeerGone: the source ended the connection, or it broke.
            OSError: the device does not take it.
        """
        with self._lock:
            if self._chunk is not chunk:
                return False
            try:
                self._splice(chunk.length)
            except BaseException:
                self.broken = True
                raise
            finally:
                self._chunk = None
            return True

    def settle(self) -> None:
        """Take the payload into the chunk's buffer if nobody has moved it.

        Raises:
            PeerGone: the source ended the connection, or it broke.
        """
        with self._lock:
            chunk = self._chunk
            if chunk is None:
                return
            size = chunk.length
            if read_exactly(self._channel, chunk.buffer, size, self._tick) < size:
                raise cut_short(self._name, self._index)
            self._chunk = None

    def _splice(self, left: int) -> None:
        origin = self._channel.fileno()
        inlet, outlet, target = self._pipe.inlet, self._pipe.outlet, self._target
        while left:
            try:
                got = os.splice(origin, inlet, left)
            except OSError as error:
                waited(error, self._tick)
                continue
            if not got:
                raise cut_short(self._name, self._index)
            left -= got
            while got:
                got -= os.splice(outlet, target, got)

    def _tick(self) -> None:
        self._idle(f"{self._name}: the rest of chunk {self._index} has not come")

    def close(self) -> None:
        """Close the pipe."""
        self._pipe.close()


def cut_short(name: str, index: int) -> PeerGone:
    """The channel ended within chunk ``index`` of the device called ``name``."""
    return PeerGone(f"{name}, chunk {index}: the source closed the channel in the middle of it")
