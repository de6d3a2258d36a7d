"""What the vCPUs of a machine share, as a device: interrupt controllers, timer and clock, one config.

It comes after the vCPUs: it is saved when all of them stand, and loaded when all of them have their state, since
loading an interrupt controller delivers what is pending to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from migpool.device import DeviceError
from migpool_plugins.vcpu.group import BOARD, GroupDevice, VcpuGroup
from migpool_plugins.vcpu.state import StateFormat


class BoardDevice(GroupDevice):
    """The board of a group's machine. With a backend that has none its config is a header alone."""

    idstr = "vcpu-board"

    def __init__(self, group: VcpuGroup) -> None:
        super().__init__(group, BOARD, StateFormat("vcpu-board", group.machine.kind, group.machine.board))
        self.after = [f"vcpu#{vcpu.index}" if vcpu.index else "vcpu" for vcpu in group.machine.vcpus]
        self._sets: Mapping[str, bytes] | None = None
        self._aborted = False

    def save_config(self) -> bytes:
        self._check()
        if not self._group.standing:
            raise DeviceError("a vCPU runs: stop every vCPU before what they share is saved")
        self._sets = self._machine.save_board()
        return self._format.encode(0, self._sets)

    def resume(self) -> None:
        self._aborted = False

    def load_config(self, data: bytes) -> None:
        self._check()
        missing = sorted(set(range(len(self._group.threads))) - self._group.loaded)
        if missing:
            raise DeviceError(f"vCPU {missing[0]} has no state yet: what the vCPUs share is loaded after them")
        if not self._group.standing:
            raise DeviceError("a vCPU runs: what they share is loaded before they are started")
        self.note = self._group.noted(self._machine.load_board(self._format.decode(0, data)))
        self._sets = self._machine.save_board()

    def fingerprint(self) -> bytes | None:
        """Return the SHA-256 of what was saved, or of what was read back after it was loaded; without the clock."""
        if self._sets is None:
            return None
        return hashlib.sha256(self._format.encode(0, self._machine.comparable_board(self._sets))).digest()

    def abort(self) -> None:
        self._aborted = True

    def describe_config(self) -> Mapping[str, object]:
        return self._format.describe(0, self._machine.blank_board)

    def _check(self) -> None:
        if self._closed:
            raise DeviceError("the board of the vCPUs is closed")
        if self._aborted:
            raise DeviceError("the board of the vCPUs: the migration was aborted")
