"""The messages of vfio-user, sans I/O: headers, commands, and those payloads that are not the kernel's structures.

All integers are in the host's byte order and without padding, since both ends are on one host. A message is a header of
16 bytes and a payload; a reply echoes the number and the command of what it answers. The formats are those of the
protocol's specification, version 0.2, and of the kernel's user interface, which it embeds
(``migpool_plugins/vfio/migration.py``).
"""

from __future__ import annotations

import enum
import os
import struct
from dataclasses import dataclass
from errno import errorcode
from typing import Final

HEADER: Final = struct.Struct("=HHIII")
"""Message number, command, size of the whole message, flags, error number."""
PRECOPY_INFO: Final = struct.Struct("=QQ")
"""Initial and dirty bytes."""
DATA: Final = struct.Struct("=II")
"""Before migration data: argsz (at least 8 + size), size."""
INFO: Final = struct.Struct("=IIII")
"""Answer to GET_INFO: argsz, flags, regions, interrupts."""
INFO_RESET: Final = 1
"""In the flags of INFO: the device can be reset."""


class MessageError(ValueError):
    """The bytes are no message of this protocol; the connection they came from cannot be used any more."""


class UserCommand(enum.IntEnum):
    """What a message is about; those with which a migration has nothing to do are left out."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    DMA_READ = 11
    DMA_WRITE = 12
    RESET = 13
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


class MessageFlag(enum.IntFlag):
    """The header's flags; of the lowest four bits 0 is a command and 1 a reply."""

    REPLY = 0x1
    TYPE = 0xF
    NO_REPLY = 0x10
    ERROR = 0x20


@dataclass(frozen=True, slots=True)
class Header:
    """A message's header.

    Arguments:
        number: tells which reply belongs to which command.
        command: a value of :class:`UserCommand`, or one that nobody knows.
        size: bytes of the whole message.
        flags: see :class:`MessageFlag`.
        errno: in a reply that is an error, why.
    """

    number: int
    command: int
    size: int
    flags: int
    errno: int = 0

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview, most: int) -> Header:
        """Return the header that 16 bytes are; a :class:`MessageError` unless its size is one of up to ``most``."""
        header = cls(*HEADER.unpack(data))
        if not HEADER.size <= header.size <= most:
            raise MessageError(f"a message says that it has {header.size} bytes: {HEADER.size} to {most} are possible")
        return header

    @property
    def is_reply(self) -> bool:
        return self.flags & MessageFlag.TYPE == MessageFlag.REPLY

    @property
    def is_error(self) -> bool:
        return bool(self.flags & MessageFlag.ERROR)

    @property
    def wants_reply(self) -> bool:
        return not self.flags & MessageFlag.NO_REPLY

    @property
    def rest(self) -> int:
        """Bytes of payload."""
        return self.size - HEADER.size


def command(number: int, what: UserCommand, payload: int, no_reply: bool = False) -> bytes:
    """Return the header of a command with so many bytes of payload."""
    return HEADER.pack(number, what, HEADER.size + payload, MessageFlag.NO_REPLY if no_reply else 0, 0)


def reply(to: Header, payload: int, errno: int = 0) -> bytes:
    """Return the header of the reply to a command, with so many bytes of payload; an error if ``errno`` is not 0."""
    flags = MessageFlag.REPLY | (MessageFlag.ERROR if errno else 0)
    return HEADER.pack(to.number, to.command, HEADER.size + payload, flags, errno)


def words(number: int) -> str:
    """An error number in words: its text and its name. A server may send any 32 bits as one."""
    name = errorcode.get(number)
    return f"error {number}, which has no name" if name is None else f"{os.strerror(number)} ({name})"
