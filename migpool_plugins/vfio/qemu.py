"""VFIO devices of a QEMU's machine: their state is the driver's, their config is QEMU's.

The config is what QEMU keeps of the device as PCI sees it (its config space, the interrupts' state), which is nobody's
here: it is held as it came, and given on so. Its length has no place in the stream, so a recorded stream of the machine
says it, in the device's section::

    u64 ffffffffef100002, config, u64 ffffffffef100001

The config begins with u32 version and the config space, in the device's own byte order; see
``migpool/streams/inspect/vfiostate.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from migpool.device import DeviceError, VerificationError
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vmsd.capture import read_stream

_CONFIG, _END = bytes.fromhex("ffffffffef100002"), bytes.fromhex("ffffffffef100001")
_SPACE: Final = 4
"""Where the config space begins."""
_IDENTITY: Final = {"vendor and device": slice(0, 4), "subsystem": slice(0x2C, 0x30)}
_LEAST: Final = _SPACE + 256


def captured_configs(stream: Path, names: Sequence[str]) -> list[bytes]:
    """The configs that devices had when a stream was recorded.

    Arguments:
        stream: the file; as QEMU writes it, or ``migpool receive --store``.
        names: the devices' idstrs.

    Raises:
        DescriptionError: it cannot be read.
        DeviceError: it has no such device, or no config of it.
    """
    found = {section.name: section.payload for section in read_stream(stream)}
    for name in names:
        if name not in found:
            known = ", ".join(known for known in found if known.endswith("/vfio")) or "none"
            raise DeviceError(f"vfio option idstr is {name!r}, but {stream} has no such VFIO device: it has {known}")
    return [_within(found[name], name, stream) for name in names]


def _within(payload: bytes, name: str, stream: Path) -> bytes:
    config = payload[len(_CONFIG) : -len(_END)]
    if not (payload.startswith(_CONFIG) and payload.endswith(_END) and len(config) >= _LEAST):
        raise DeviceError(
            f"vfio option stream is {str(stream)!r}, which has no config of {name}: record it with receive --store"
        )
    return config


class QemuVfioDevice(VfioDevice):
    """A VFIO device that a QEMU can send and take.

    How much state there is to come, its config does not say: the driver alone finds that a part is missing.

    Arguments:
        config: a captured one: what is sent, and of what length and for which PCI device one may come.
        others: those of :class:`VfioDevice`.
    """

    def __init__(self, *others: Any, config: bytes, **more: Any) -> None:
        super().__init__(*others, **more)
        self._config = config

    def exact_config(self) -> bool:
        return True

    def measure_config(self, data: memoryview) -> int | None:
        """As long as the captured one."""
        return len(self._config) if len(data) >= len(self._config) else None

    def save_config(self) -> bytes:
        self._guard.check()
        return self._config

    def load_config(self, data: bytes) -> None:
        """Hold the config, if it is one of this device, and let the device judge its state: it leaves RESUMING."""
        self._guard.check()
        if len(data) != len(self._config):
            right = f"{len(self._config)} bytes, found {len(data)}"
            raise self._spoiled(VerificationError(f"the config is not one of this device, whose has {right}"))
        ours, theirs = self._config[_SPACE:], data[_SPACE:]
        for what, where in _IDENTITY.items():
            if ours[where] != theirs[where]:
                right = f"{what} {_shown(ours[where])}, found {_shown(theirs[where])}"
                raise self._spoiled(VerificationError(f"the config is not one of this device: {right}"))
        self._finish_loading()
        self._config = data


def _shown(numbers: bytes) -> str:
    """Two numbers of a PCI device, as they are written."""
    return ":".join(numbers[at : at + 2][::-1].hex() for at in (0, 2))
