"""One engine of a vfio-user server's device, a connection on which parts with tags move; how long messages are."""

from __future__ import annotations

from typing import Final

from migpool.device import Part
from migpool_plugins.vfio.profiles import PAGE
from migpool_plugins.vfio.vfiouser.connection import Connection, refusal
from migpool_plugins.vfio.vfiouser.message import PART, Capabilities, UserCommand

READ_SIZE: Final = 1 << 20
"""Bytes of data a message that are proposed to a server."""
SAFE_WRITE: Final = 32 << 10
"""Bytes of data a write that every known server takes."""
MOST_WRITTEN: Final = 64 << 20
"""Bytes of data a write at the most, whatever a server announces."""


class UserEngine:
    """One connection on which parts with tags are read and written, one at a time.

    Arguments:
        connection: the engine owns it.
        capabilities: the server's.
    """

    def __init__(self, connection: Connection, capabilities: Capabilities) -> None:
        self._connection = connection
        self._read_size = min(capabilities.max_transfer, READ_SIZE)
        most = min(capabilities.max_write or SAFE_WRITE, capabilities.max_transfer, MOST_WRITTEN)
        # A part that is cut goes on at a tag of its own.
        self._write_size = max(PAGE, most // PAGE * PAGE)

    @property
    def over(self) -> bool:
        return self._connection.over

    def read(self, buffer: memoryview) -> Part | None:
        """Read the next part straight into ``buffer``; ``None`` if none is left."""
        tag, length = self._connection.ask_for_part(min(len(buffer), self._read_size), buffer)
        return Part(tag, length) if length else None

    def write(self, tag: int, data: memoryview) -> None:
        """Write a part, and wait until the device has taken all of it."""
        for begin in range(0, max(1, len(data)), self._write_size):
            piece = data[begin : begin + self._write_size]
            head = PART.pack(PART.size + len(piece), len(piece), tag + begin // PAGE)
            number = self._connection.send(UserCommand.MIG_PART_WRITE, head, "write", piece)
            if refused := self._connection.answer(number, "write"):
                raise refusal("the write was refused", refused)

    def abort(self) -> None:
        self._connection.abort()

    def close(self) -> None:
        self._connection.close()
