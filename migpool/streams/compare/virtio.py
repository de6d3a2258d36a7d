"""The opaque state of a virtio device on PCI, as far as it is the same for all kinds of them.

Big-endian, as in QEMU 7.2 to 11.1::

    i32 2, config space (pci.py), 4 u32 interrupt lines
    with MSI-X of n vectors: n * 16 bytes, (n + 7) / 8 bytes, u16 vector of the configuration
    u8 status, u8 interrupts, u16 selected queue, u32 features (the low ones), u32 size, device configuration[size]
    u32 queues, each: u32 size, u64 address, u16 index, with MSI-X u16 vector
    what the kind of device has, and subsections; virtio/64bit_features v1: u64 all features

A console goes on with u16 columns, u16 rows, u32 ports n, (n + 31) / 32 u32: a bit for each port that there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, error
from typing import Final

from migpool.streams.compare import pci

_HEAD: Final = bytes.fromhex("00000002")
_VENDOR: Final = pci.VIRTIO_VENDOR.to_bytes(2, "little")
_LINES: Final = 16
_REGISTERS: Final = Struct(">BBHII")
_COUNT: Final = Struct(">I")
_QUEUE: Final = Struct(">IQH")
_CONSOLE: Final = Struct(">HHI")
_CONSOLES: Final = (0x1003, 0x1043)
_FEATURES: Final = b"\x05\x15virtio/64bit_features\x00\x00\x00\x01"
_QUEUES_AT_MOST: Final = 1024
_PORTS_AT_MOST: Final = 512


@dataclass(frozen=True, slots=True)
class VirtioState:
    """What is known of one device.

    Arguments:
        space: its configuration space.
        features: what its driver has taken; 0 before that.
        queues: how many queues it has.
        ports: of a console, a bit for each port; None of other devices.
    """

    space: bytes
    features: int
    queues: int
    ports: bytes | None


def read_state(state: bytes) -> VirtioState | None:
    """Read a device's state; None if it is not of this form."""
    if not state.startswith(_HEAD + _VENDOR):
        return None
    space = pci.space_of(state[len(_HEAD) :])
    at = len(_HEAD) + len(space) + _LINES
    vectors = 0
    for place, kind in pci.capabilities(space).items():
        if kind == pci.MSIX:
            vectors = (pci.number(space, place + 2, 2) & 0x07FF) + 1
    if vectors:
        at += vectors * 16 + (vectors + 7) // 8 + 2
    try:
        *_, features, size = _REGISTERS.unpack_from(state, at)
        at += _REGISTERS.size + size
        (queues,) = _COUNT.unpack_from(state, at)
        if queues > _QUEUES_AT_MOST:
            return None
        at += _COUNT.size + queues * (_QUEUE.size + (2 if vectors else 0))
        found = state.find(_FEATURES, at)
        if found >= 0:
            features = int.from_bytes(state[found + len(_FEATURES) :][:8], "big")
        ports = None
        if pci.number(space, 2, 2) in _CONSOLES:
            *_, most = _CONSOLE.unpack_from(state, at)
            at += _CONSOLE.size
            ports = state[at : at + 4 * ((min(most, _PORTS_AT_MOST) + 31) // 32)]
    except error:
        return None
    return VirtioState(space, features, queues, ports)
