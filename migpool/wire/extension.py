"""The messages of the return path that are this project's own, for two ends that both name ``x-migpool-credits``.

A source offers them by naming :data:`CREDITS_CAPABILITY` among the capabilities of its configuration; a destination
that does not know the name refuses the stream, as QEMU does with every capability that it does not know. A source that
sends devices that are not iterable over the multifd channels names :data:`DESCRIBED_CAPABILITY` too. Type numbers begin
with 0x4d50 ("MP"), far from QEMU's. All integers are big-endian::

    4d50 GRANT    u32 device, u32 limit       the first index of the device that may not be sent yet
    4d51 WELCOME  u32 chunk, u32 devices      the longest chunk in bytes, and how many devices are expected
    4d52 RUNNING  boot id[16], u64 ns         when the machine ran, by the CLOCK_MONOTONIC of that boot
    4d53 FAILED   UTF-8 text, 1 to 480 bytes  the destination's reason in one line; SHUT 1 follows
    4d54 DIGEST   u32 place, digest[32]       what a device's state is at the destination, after RUNNING; all zero: none
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from migpool.errors import ProtocolError
from migpool.wire.unread import Buffer

CREDITS_CAPABILITY: Final = "x-migpool-credits"
DESCRIBED_CAPABILITY: Final = "x-migpool-multifd-vmsd"
FAILED_LIMIT: Final = 480

GRANT: Final = 0x4D50
WELCOME: Final = 0x4D51
RUNNING: Final = 0x4D52
FAILED: Final = 0x4D53
DIGEST: Final = 0x4D54
DIGEST_SIZE: Final = 32

M = TypeVar("M")
_TWO = struct.Struct(">II")
_RUNNING = struct.Struct(">16sQ")
_DIGEST = struct.Struct(">I32s")


@dataclass(frozen=True, slots=True)
class GrantMessage:
    """Room at the destination for more chunks of one device.

    Arguments:
        device: the device's number, from 0: the iterable ones in the order of the START sections of the main channel,
            then those that are not iterable and cross over the multifd channels, in the order of their loading.
        limit: the first index that may not be sent yet; a later grant for a device never lowers it.
        offset: where in the return path the message began.
    """

    device: int
    limit: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The destination's terms, before anything is sent on the multifd channels.

    Arguments:
        chunk: the longest chunk that it accepts, in bytes without headers.
        devices: how many devices it expects.
        offset: where in the return path the message began.
    """

    chunk: int
    devices: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """The machine runs at the destination.

    Arguments:
        boot_id: the 16 bytes of the kernel's boot id there: clocks compare only within one boot of one kernel.
        nanoseconds: CLOCK_MONOTONIC when it ran.
        offset: where in the return path the message began.
    """

    boot_id: bytes
    nanoseconds: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The destination's reason for giving up.

    Arguments:
        reason: one line. Line breaks become spaces and the text is cut to 480 bytes when it is written.
        offset: where in the return path the message began.
    """

    reason: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Digest:
    """What a device's state is at the destination, for the source to compare with what it saved.

    Arguments:
        place: the device's place in the machine's order, from 0.
        digest: 32 bytes; all zero if the device has no digest.
        offset: where in the return path the message began.
    """

    place: int
    digest: bytes
    offset: int = 0


OwnMessage: TypeAlias = GrantMessage | Welcome | Running | Failed | Digest


def encode_own(message: OwnMessage) -> tuple[int, bytes]:
    """The message's type and data.

    Raises:
        ValueError: a boot id is not 16 bytes long, or a reason is empty.
    """
    match message:
        case GrantMessage(device, limit):
            return GRANT, _TWO.pack(device, limit)
        case Welcome(chunk, devices):
            return WELCOME, _TWO.pack(chunk, devices)
        case Running(boot_id, nanoseconds):
            if len(boot_id) != 16:
                raise ValueError(f"a boot id has 16 bytes, not {len(boot_id)}")
            return RUNNING, _RUNNING.pack(boot_id, nanoseconds)
        case Failed(reason):
            return FAILED, _one_line(reason)
        case Digest(place, digest):
            if len(digest) != DIGEST_SIZE:
                raise ValueError(f"a digest has {DIGEST_SIZE} bytes, not {len(digest)}")
            return DIGEST, _DIGEST.pack(place, digest)


def _one_line(reason: str) -> bytes:
    text = " ".join(reason.split())
    if not text:
        raise ValueError("a destination that fails must say why")
    data = text.encode("utf-8", "replace")[:FAILED_LIMIT]
    # The cut may have left the beginning of a character behind.
    return data.decode("utf-8", "ignore").encode("utf-8")


def fixed(name: str, layout: struct.Struct, make: Callable[..., M]) -> tuple[str, int, Callable[[Buffer, int], M]]:
    """A kind of message with one layout: its name, how many bytes its data has, and what reads data at an offset."""
    return name, layout.size, lambda data, offset: make(*layout.unpack(data), offset)


def _failed(data: Buffer, offset: int) -> Failed:
    if not 0 < len(data) <= FAILED_LIMIT:
        raise ProtocolError(offset + 2, "FAILED message", f"1 to {FAILED_LIMIT} bytes of text, found {len(data)}")
    try:
        reason = bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(offset + 4 + error.start, "FAILED message", "UTF-8 text") from None
    # Shown on a terminal as one line, so it must not carry control characters there.
    return Failed("".join(c if c.isprintable() else " " for c in reason), offset)


OWN_KINDS: Final[Mapping[int, tuple[str, int | None, Callable[[Buffer, int], OwnMessage]]]] = {
    GRANT: fixed("GRANT", _TWO, GrantMessage),
    WELCOME: fixed("WELCOME", _TWO, Welcome),
    RUNNING: fixed("RUNNING", _RUNNING, Running),
    FAILED: ("FAILED", None, _failed),
    DIGEST: fixed("DIGEST", _DIGEST, Digest),
}
