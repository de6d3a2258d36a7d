"""Configuration spaces of PCI devices, compared as a destination does: what a guest cannot write must be its own.

The space is little-endian, 256 bytes, or 4096 of PCI Express; its layout is that of the PCI specifications. What QEMU
compares was read off its refusals: at the places where the **destination** has a capability all that is read-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

SPACE: Final = 256
EXPRESS_SPACE: Final = 4096
EXPRESS: Final = 0x10
MSIX: Final = 0x11
VIRTIO_VENDOR: Final = 0x1AF4
_POWER, _MSI, _VENDOR, _SUBSYSTEM, _ADVANCED = 0x01, 0x05, 0x09, 0x0D, 0x13
_CAPABILITY_BIT: Final = 0x10
_AT_MOST: Final = 64
_IDENTITY: Final = {
    "vendor": (0x00, 2),
    "device": (0x02, 2),
    "revision": (0x08, 1),
    "class": (0x09, 3),
    "header type": (0x0E, 1),
}
_READ_ONLY: Final[Mapping[int, Mapping[str, tuple[int, int, int]]]] = {
    _POWER: {"power management": (2, 2, 0xFFFF)},
    _MSI: {"MSI's control": (2, 2, 0x018E)},
    _SUBSYSTEM: {"subsystem of a bridge": (4, 4, 0xFFFFFFFF)},
    _ADVANCED: {"advanced features": (2, 2, 0xFFFF)},
    EXPRESS: {"PCI Express's flags": (2, 2, 0xFFFF), "device capabilities": (4, 4, 0xFFFFFFFF)},
    MSIX: {
        "size of the MSI-X table": (2, 2, 0x07FF),
        "place of the MSI-X table": (4, 4, 0xFFFFFFFF),
        "place of MSI-X's pending bits": (8, 4, 0xFFFFFFFF),
    },
}
"""For capabilities: places behind their beginning, bytes, and the bits that count."""
_SECOND_EXPRESS: Final = {
    "link capabilities": (0x0C, 4, 0xFFFFFFFF),
    "slot capabilities": (0x14, 4, 0xFFFFFFFF),
    "device capabilities 2": (0x24, 4, 0xFFFFFFFF),
    "link capabilities 2": (0x2C, 4, 0xFFFFFFFF),
}
"""... of PCI Express from its version 2 on."""
_EXTENDED_READ_ONLY: Final[Mapping[int, Mapping[str, tuple[int, int, int]]]] = {
    0x03: {"serial number (of a network card, its MAC)": (4, 8, (1 << 64) - 1)},
    0x0D: {"access control services": (4, 2, 0xFFFF)},
    0x0E: {"alternative routing": (4, 4, 0xFFFFFFFF)},
    0x0F: {"address translation services": (4, 2, 0xFFFF)},
    0x10: {
        "virtual functions at first": (0x0C, 2, 0xFFFF),
        "virtual functions": (0x0E, 2, 0xFFFF),
        "place and step of virtual functions": (0x14, 4, 0xFFFFFFFF),
        "device of virtual functions": (0x1A, 2, 0xFFFF),
        "page sizes of virtual functions": (0x1C, 4, 0xFFFFFFFF),
    },
    0x13: {"most page requests": (0x08, 4, 0xFFFFFFFF)},
    0x1B: {"process address spaces": (4, 2, 0xFFFF)},
}
"""... and the same for extended capabilities, by the low 16 bits of their heads."""
_WINDOW: Final = 5
_VIRTIO_CAPABILITY: Final = {"kind of virtio's structure": (2, 2, 0xFFFF)}
_VIRTIO_PLACE: Final = {"BAR of virtio's structure": (4, 1, 0xFF), "place of virtio's structure": (8, 4, 0xFFFFFFFF)}
_VIRTIO_SIZE: Final = {"size of virtio's structure": (12, 4, 0xFFFFFFFF)}
_VIRTIO_STEP: Final = {"step of virtio's notifications": (16, 4, 0xFFFFFFFF)}
_NOTIFY: Final = 2


def space_of(state: bytes) -> bytes:
    """The space that bytes begin with, as long as it is."""
    express = EXPRESS in capabilities(state).values()
    return state[: EXPRESS_SPACE if express else SPACE]


def number(space: bytes, at: int, size: int) -> int:
    """The number at a place."""
    return int.from_bytes(space[at : at + size], "little")


def subsystem(space: bytes) -> int:
    """Vendor and device of the subsystem, of a device that is no bridge; else 0."""
    return 0 if len(space) < SPACE or space[0x0E] & 0x7F else number(space, 0x2C, 4)


def differences(source: bytes, destination: bytes) -> Iterator[str]:
    """What of the source's space the destination refuses, in words."""
    if len(source) != len(destination):
        yield "one of PCI Express, the other not"
        return
    for what, (at, size) in _IDENTITY.items():
        written, own = number(source, at, size), number(destination, at, size)
        if written != own:
            yield f"{what} {written:#x} is written, the destination's is {own:#x}"
    yield from _regions(source, destination)
    ours, theirs = capabilities(source), capabilities(destination)
    if ours != theirs:
        yield f"capabilities {_listed(ours)} are written, the destination has {_listed(theirs)}"
        return
    for at in theirs:
        yield from _values(source, destination, at, _fixed(destination, at))
    for at, head in _extended(destination).items():
        written = number(source, at, 4)
        if written != head:
            yield f"extended capability {head:#010x} of the destination at {at:#x} is {written:#010x} at the source"
            continue
        yield from _values(source, destination, at, _EXTENDED_READ_ONLY.get(head & 0xFFFF, {}))


def _values(source: bytes, destination: bytes, at: int, fixed: Mapping[str, tuple[int, int, int]]) -> Iterator[str]:
    """What differs of the read-only values of a capability."""
    for what, (place, size, bits) in fixed.items():
        written, own = (number(space, at + place, size) & bits for space in (source, destination))
        if written != own:
            yield f"{what} {written:#x} is written, the destination's is {own:#x}"


def _regions(source: bytes, destination: bytes) -> Iterator[str]:
    """The kinds of the regions; that of one that is not there cannot be told from memory of 32 bits."""
    at, end = 0x10, 0x18 if destination[0x0E] & 0x7F else 0x28
    while at < end:
        bits = 0x3 if destination[at] & 1 else 0xF
        written, own = source[at] & bits, destination[at] & bits
        if own and written != own:
            yield f"BAR {(at - 0x10) // 4} is of kind {written:#x}, the destination's of {own:#x}"
        at += 8 if own & 0x7 == 0x4 else 4


def _fixed(space: bytes, at: int) -> Mapping[str, tuple[int, int, int]]:
    """What is read-only in the capability at a place."""
    kind = space[at]
    if kind == EXPRESS and space[at + 2] & 0xF > 1:
        return {**_READ_ONLY[EXPRESS], **_SECOND_EXPRESS}
    if kind == _VENDOR and number(space, 0, 2) == VIRTIO_VENDOR:
        if space[at + 3] == _WINDOW:
            return _VIRTIO_CAPABILITY
        step = _VIRTIO_STEP if space[at + 3] == _NOTIFY else {}
        return {**_VIRTIO_CAPABILITY, **_VIRTIO_PLACE, **_VIRTIO_SIZE, **step}
    if kind == _VENDOR and space[0x0E] & 0x7F:
        size = space[at + 2] - 2
        return {"what a bridge reserves for hot-plugging": (2, size, (1 << 8 * size) - 1)} if size > 0 else {}
    return _READ_ONLY.get(kind, {})


def _listed(found: Mapping[int, int]) -> str:
    return ", ".join(f"{each:02x} at {at:02x}" for at, each in found.items()) or "none"


def capabilities(space: bytes) -> dict[int, int]:
    """The capabilities' ids by their places, in their order."""
    found: dict[int, int] = {}
    if len(space) < SPACE or not space[0x06] & _CAPABILITY_BIT:
        return found
    at = space[0x34]
    while at and at not in found and at + 1 < SPACE and len(found) < _AT_MOST:
        found[at] = space[at]
        at = space[at + 1]
    return found


def _extended(space: bytes) -> dict[int, int]:
    """The heads of the extended capabilities by their places: id, version, and where the next one is."""
    found: dict[int, int] = {}
    at = SPACE
    while SPACE <= at < len(space) - 3 and at not in found and len(found) < _AT_MOST:
        head = number(space, at, 4)
        if not head:
            break
        found[at] = head
        at = head >> 20
    return found
