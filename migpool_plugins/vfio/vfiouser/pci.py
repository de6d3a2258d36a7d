"""The PCI function that a served device is to a VMM: its configuration space, one BAR, and no interrupt for the guest.

The payloads are the kernel's ``vfio_region_info``, ``vfio_irq_info`` and ``vfio_irq_set`` (``<linux/vfio.h>``, which
the specification of vfio-user embeds), and the protocol's own for an access to a region.

The configuration space is a header of type 0 without capabilities, by the PCI Local Bus Specification 3.0, chapter 6.
The BAR is 4 KiB of memory that can only be read (writes are passed over, as by hardware), little-endian::

    0x00  u32  "migp"
    0x04  u32  the state of the migration, as DEVICE_FEATURE numbers it
    0x08  u64  bytes of state that a save of the device gives

Nothing here is in the migration's data: what a VMM writes to the configuration space it migrates itself. A reset leaves
that as it is, since the kernel restores it behind one, and who resets may be another client than the VMM.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from errno import EINVAL
from typing import Final, NamedTuple

from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import Refusal
from migpool_plugins.vfio.vfiouser.message import UserCommand

REGIONS: Final = 9
"""As the kernel counts them: six BARs, the ROM, the configuration space, VGA."""
INTERRUPTS: Final = 5
"""Kinds of them, as the kernel counts: INTx, MSI, MSI-X, error, request."""
_ERROR: Final = 3
"""The kind of which the device has one: without it QEMU warns. There is no error that it would tell of."""
_ERROR_FLAGS: Final = 1 << 0 | 1 << 3
"""Told by an eventfd; set up as a whole."""
_BAR: Final = 0
_CONFIG: Final = 7
_SIZES: Final = {_BAR: 4096, _CONFIG: 256}
_READ_WRITE: Final = 3

_REGION_INFO: Final = struct.Struct("=IIIIQQ")
"""argsz, flags, index, offset of capabilities, size, offset."""
_IRQ_INFO: Final = struct.Struct("=IIII")
"""argsz, flags, index, count."""
_IRQ_SET: Final = struct.Struct("=IIIII")
"""argsz, flags, index, start, count."""
_ACCESS: Final = struct.Struct("=QII")
"""Offset, region, count; the data follow."""
_ALL_OFF: Final = frozenset(1 << 0 | action for action in (1 << 3, 1 << 4, 1 << 5))
"""No data, to mask, unmask or trigger: with a count of 0, all interrupts of a kind are turned off."""
_FOR_ERRORS: Final = (_ERROR, 1 << 2 | 1 << 5, 0, 1)
"""An eventfd, to be triggered, for the first one and no other; without a descriptor, none any more."""

_HEADER: Final = struct.Struct("<HHHHI")
"""Vendor, device, command, status, and a byte of revision below three of the class."""
_CLASS: Final = 0x088000
"""A system peripheral of no other kind: no driver takes it for something it is not."""
_SUBSYSTEM: Final = 0x2C
_REGISTERS: Final = struct.Struct("<4sIQ")
_WRITABLE: Final = (
    (0x04, struct.pack("<H", 0x0546)),  # command: memory, bus master, parity, SERR, INTx off
    (0x0C, b"\xff"),  # cache line size
    (0x10, struct.pack("<I", 0x1_0000_0000 - _SIZES[_BAR])),  # where the BAR is
    (0x3C, b"\xff"),  # interrupt line
)


class PciId(NamedTuple):
    """Whose device it is, and which."""

    vendor: int
    device: int


EXPERIMENTAL: Final = PciId(0x1AF4, 0x10F0)
"""The first of those that Red Hat leaves to experiments; no driver is written for it."""


class PciFunction:
    """What a VMM sees of one device, whichever connection it comes on.

    Arguments:
        device: whose state the registers show.
        identity: the numbers of vendor and device; of the subsystem, too.
    """

    def __init__(self, device: DeviceState, identity: PciId = EXPERIMENTAL) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._config = bytearray(_SIZES[_CONFIG])
        _HEADER.pack_into(self._config, 0, *identity, 0, 0, _CLASS << 8)
        struct.pack_into("<HH", self._config, _SUBSYSTEM, *identity)
        self._mask = bytearray(len(self._config))
        for at, bits in _WRITABLE:
            self._mask[at : at + len(bits)] = bits
        self.answers: dict[int, Callable[[bytes], bytes]] = {
            UserCommand.GET_REGION_INFO: self._region_info,
            UserCommand.GET_IRQ_INFO: self._irq_info,
            UserCommand.SET_IRQS: self._set_irqs,
            UserCommand.REGION_READ: self._read,
            UserCommand.REGION_WRITE: self._write,
        }

    def _region_info(self, payload: bytes) -> bytes:
        index = _fields(_REGION_INFO, payload, "the information of a region", REGIONS)
        size = _SIZES.get(index, 0)
        return _REGION_INFO.pack(_REGION_INFO.size, _READ_WRITE if size else 0, index, 0, size, 0)

    def _irq_info(self, payload: bytes) -> bytes:
        index = _fields(_IRQ_INFO, payload, "the information of an interrupt", INTERRUPTS)
        one = index == _ERROR
        return _IRQ_INFO.pack(_IRQ_INFO.size, _ERROR_FLAGS if one else 0, index, one)

    def _set_irqs(self, payload: bytes) -> bytes:
        kind = _fields(_IRQ_SET, payload, "a setting of interrupts", INTERRUPTS)
        _, flags, _, start, count = _IRQ_SET.unpack_from(payload)
        if (flags not in _ALL_OFF or start or count) and (kind, flags, start, count) != _FOR_ERRORS:
            raise Refusal(
                f"{count} interrupts of kind {kind} from {start} with flags {flags:#x}: "
                "all of a kind can be turned off, and one eventfd set for errors",
                errno=EINVAL,
            )
        return b""

    def _read(self, payload: bytes) -> bytes:
        head, region, begin, end = _access(payload)
        if len(payload) != _ACCESS.size:
            raise Refusal("a read of a region takes 16 bytes", errno=EINVAL)
        if region == _CONFIG:
            with self._lock:
                return head + self._config[begin:end]
        state = self._device
        registers = _REGISTERS.pack(b"migp", state.state, state.profile.size)
        return head + registers.ljust(_SIZES[_BAR], b"\0")[begin:end]

    def _write(self, payload: bytes) -> bytes:
        head, region, begin, end = _access(payload)
        data = payload[_ACCESS.size :]
        if len(data) != end - begin:
            raise Refusal(f"a write of {end - begin} bytes to a region came with {len(data)}", errno=EINVAL)
        if region == _CONFIG:
            with self._lock:
                for at, new in enumerate(data, begin):
                    self._config[at] = self._config[at] & ~self._mask[at] | new & self._mask[at]
        return head


def _fields(form: struct.Struct, payload: bytes, what: str, indexes: int) -> int:
    """The index in a payload of the kernel's; a :class:`Refusal` if that is too short, or of another device."""
    if len(payload) < form.size or form.unpack_from(payload)[0] < form.size:
        raise Refusal(f"{what} takes {form.size} bytes, and argsz of as many", errno=EINVAL)
    index: int = form.unpack_from(payload)[2]
    if index >= indexes:
        raise Refusal(f"{what} was asked for index {index}: 0 to {indexes - 1} are possible", errno=EINVAL)
    return index


def _access(payload: bytes) -> tuple[bytes, int, int, int]:
    """What the answer to an access begins with, the region, and from where to where; a :class:`Refusal` beyond it."""
    if len(payload) < _ACCESS.size:
        raise Refusal("an access to a region takes 16 bytes", errno=EINVAL)
    begin, region, count = _ACCESS.unpack_from(payload)
    size = _SIZES.get(region, 0)
    if begin + count > size:
        raise Refusal(
            f"{count} bytes at {begin:#x} of region {region}, which has {size} bytes, cannot be accessed", errno=EINVAL
        )
    return payload[: _ACCESS.size], region, begin, begin + count
