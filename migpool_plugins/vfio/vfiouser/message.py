"""The messages of vfio-user, sans I/O: headers, commands, and those payloads that are not the kernel's structures.

All integers are in the host's byte order and without padding, since both ends are on one host. A message is a header of
16 bytes and a payload; a reply echoes the number and the command of what it answers. The formats are those of the
protocol's specification, version 0.2, and of the kernel's user interface, which it embeds
(``migpool_plugins/vfio/migration.py``).

The payload of VERSION is two numbers, and what each end can do, as JSON that ends in a NUL; the JSON may be missing. A
server answers at most what was proposed: the lower minor number, and of the capabilities those that the client named.
Whether a device can migrate is no capability (``migration`` among them is of earlier days): DEVICE_FEATURE tells.

Besides the protocol's own capabilities a client may propose ``migpool``, an object; in a server's answer every key of
it is optional::

    max_write_size   bytes of data that one MIG_DATA_WRITE may carry. Without it migpool sends 32 KiB: there are servers
                     that lose the framing over longer ones.
    sticky_errors    a failed MIG_DATA_WRITE fails all that follow, so that only the last one needs a reply
    precopy_info     whether DEVICE_FEATURE knows PRECOPY_INFO
    parts            how many parts with tags the device serves at once. A client that wants such parts says how many
                     it wants; only then does a server know MIG_PART_READ and MIG_PART_WRITE. Each is as the
                     command for data of the kind, with a tag after the size: where in the state the part begins, in
                     pages of 4 KiB. A read that brings 0 bytes: no part is left.

Between migpool and a device process of its own, which has given it a descriptor of the memory that the state is in, the
data need not cross in messages: MIG_PLACED_READ (ASKED) is answered with where in that memory they are (PLACE, one or
two), and MIG_PLACED_WRITE says where they have been put (PLACED): one copy a read or a write, as a kernel driver needs.
"""

from __future__ import annotations

import enum
import json
import os
import struct
from dataclasses import dataclass
from errno import EIO, errorcode
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("=HHIII")
"""Message number, command, size of the whole message, flags, error number."""
PRECOPY_INFO: Final = struct.Struct("=QQ")
"""Initial and dirty bytes."""
DATA: Final = struct.Struct("=II")
"""Before migration data: argsz (at least 8 + size), size."""
PART: Final = struct.Struct("=III")
"""Before a part: argsz (at least 12 + size), size, tag."""
PLACE: Final = struct.Struct("=QQ")
"""Of data in shared memory: where they begin, and how many bytes."""
ASKED: Final = struct.Struct("=Qd")
"""Of a read of data in shared memory: how many bytes, and when it was called, CLOCK_MONOTONIC in seconds."""
PLACED: Final = struct.Struct("=QQdd")
"""The same of a write, and when it was called, and the one before it returned: CLOCK_MONOTONIC in seconds."""
INFO: Final = struct.Struct("=IIII")
"""Answer to GET_INFO: argsz, flags, regions, interrupts."""
INFO_FLAGS: Final = 3
"""Of INFO: the device can be reset, and is a PCI device."""


class MessageError(ValueError):
    """The bytes are no message of this protocol; the connection they came from cannot be used any more."""


class UserCommand(enum.IntEnum):
    """What a message is about; those that are neither sent nor answered here are left out."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    RESET = 13
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18
    MIG_PART_READ = 0xFF01
    MIG_PART_WRITE = 0xFF02
    MIG_PLACED_READ = 0xFF03
    MIG_PLACED_WRITE = 0xFF04


class MessageFlag(enum.IntFlag):
    """The header's flags; of the lowest four bits 0 is a command and 1 a reply."""

    REPLY = 0x1
    TYPE = 0xF
    NO_REPLY = 0x10
    ERROR = 0x20


# As numbers: an operation on a flag of ``enum`` costs more than all else that a header takes.
_REPLY: Final = int(MessageFlag.REPLY)
_TYPE: Final = int(MessageFlag.TYPE)
_NO_REPLY: Final = int(MessageFlag.NO_REPLY)
_ERROR: Final = int(MessageFlag.ERROR)


class Header(NamedTuple):
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
    def of(cls, data: bytes | bytearray | memoryview) -> Header:
        """Return the header that the first 16 bytes are, whatever they say."""
        return cls._make(HEADER.unpack_from(data))

    def answers(self, number: int) -> bool:
        """Whether it is the reply to the command with this number, and no error."""
        return self.number == number and self.flags == _REPLY

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview, most: int) -> Header:
        """Return the header that 16 bytes are; a :class:`MessageError` unless its size is one of up to ``most``."""
        header = cls.of(data)
        if not HEADER.size <= header.size <= most:
            raise MessageError(f"a message says that it has {header.size} bytes: {HEADER.size} to {most} are possible")
        return header

    @property
    def is_reply(self) -> bool:
        return self.flags & _TYPE == _REPLY

    @property
    def refusal(self) -> int:
        """The error number of a reply that is an error; 0 of any other message."""
        return self.errno or EIO if self.flags & _ERROR else 0

    @property
    def wants_reply(self) -> bool:
        return not self.flags & _NO_REPLY

    @property
    def rest(self) -> int:
        """Bytes of payload."""
        return self.size - HEADER.size


def command(number: int, what: UserCommand, payload: int, no_reply: bool = False) -> bytes:
    """Return the header of a command with so many bytes of payload."""
    return HEADER.pack(number, what, HEADER.size + payload, _NO_REPLY if no_reply else 0, 0)


def reply(to: Header, payload: int, errno: int = 0) -> bytes:
    """Return the header of the reply to a command, with so many bytes of payload; an error if ``errno`` is not 0."""
    flags = _REPLY | _ERROR if errno else _REPLY
    return HEADER.pack(to.number, to.command, HEADER.size + payload, flags, errno)


def words(number: int) -> str:
    """An error number in words: its text and its name. A server may send any 32 bits as one."""
    name = errorcode.get(number)
    return f"error {number}, which has no name" if name is None else f"{os.strerror(number)} ({name})"


MAJOR: Final = 0
MINOR: Final = 2
MAX_VERSION: Final = 4096
"""Bytes of a VERSION payload that are looked at: what is longer is no VERSION."""
MAX_TRANSFER: Final = 1 << 20
"""Bytes of data a message, where an end does not say: the protocol's default."""
_NUMBERS: Final = struct.Struct("=HH")
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one end of a connection can do.

    Arguments:
        max_transfer: bytes of data that one message to this end, or one answer from it, may carry.
        max_write: see the module.
        sticky_errors: see the module.
        precopy_info: see the module.
        parts: see the module.
    """

    max_transfer: int = MAX_TRANSFER
    max_write: int = 0
    sticky_errors: bool = False
    precopy_info: bool = False
    parts: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """What a VERSION message says.

    Arguments:
        minor: the minor number.
        can: what its sender can do.
        names: the capabilities that it names.
    """

    minor: int
    can: Capabilities
    names: frozenset[str]


def version(ours: Capabilities, to: Version | None = None) -> bytes:
    """Return the payload of a VERSION message: a proposal, or the answer ``to`` one."""
    extension: dict[str, object] = {}
    if ours.max_write:
        extension = {
            "max_write_size": ours.max_write,
            "sticky_errors": ours.sticky_errors,
            "precopy_info": ours.precopy_info,
        }
    if ours.parts:
        extension["parts"] = ours.parts
    table: dict[str, object] = {
        "max_msg_fds": 1,
        "max_data_xfer_size": ours.max_transfer,
        "migration": {"pgsize": _PAGE},
        "migpool": extension,
    }
    if to is not None:
        table = {name: value for name, value in table.items() if name in to.names}
    numbers = _NUMBERS.pack(MAJOR, MINOR if to is None else min(MINOR, to.minor))
    return numbers + json.dumps({"capabilities": table}).encode() + b"\0"


def parse_version(payload: bytes) -> Version:
    """Return what the other end says. What is missing has the protocol's default; what is unknown is passed over.

    Raises:
        MessageError: another major version, no capabilities that can be read, or none with which data can move.
    """
    if len(payload) < _NUMBERS.size:
        raise MessageError(f"a VERSION of {len(payload)} bytes has no version")
    major, minor = _NUMBERS.unpack_from(payload)
    if major != MAJOR:
        raise MessageError(f"version {major} is not spoken here, only {MAJOR}.{MINOR}")
    text = payload[_NUMBERS.size :].partition(b"\0")[0]
    try:
        said = json.loads(text) if text else {}
        table = said.get("capabilities", {})
        extension = table.get("migpool", {})
        found = Capabilities(
            max_transfer=_count(table, "max_data_xfer_size", MAX_TRANSFER),
            max_write=_count(extension, "max_write_size", 0),
            sticky_errors=extension.get("sticky_errors") is True,
            precopy_info=extension.get("precopy_info") is True,
            parts=_count(extension, "parts", 0),
        )
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise MessageError("the capabilities of a VERSION are no JSON of the right form") from None
    if not found.max_transfer:
        raise MessageError("the capabilities of a VERSION have a max_data_xfer_size of 0, with which no data can move")
    return Version(minor, found, frozenset(table))


def _count(table: dict[str, object], key: str, default: int) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(key)
    return value
