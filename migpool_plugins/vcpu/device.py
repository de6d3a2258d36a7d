"""A vCPU as a device: runs at the source, stops, moves as one config, and goes on at the destination.

Which thread may touch the vCPU: its own while it runs, and any other once it stands, which :class:`VcpuThread` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from migpool.device import ConfigLock, DeviceError, VerificationError
from migpool_plugins.vcpu.group import GroupDevice, VcpuGroup
from migpool_plugins.vcpu.options import VcpuOptions
from migpool_plugins.vcpu.program import PAGE_SIZE
from migpool_plugins.vcpu.proof import Guest, prove
from migpool_plugins.vcpu.register_sets import REGS, VcpuState
from migpool_plugins.vcpu.state import PAGE, StateFormat

_BATCHES_TO_SEE: Final = 3
"""Batches for which ``verify`` waits before it looks: enough to have left the one in which the state was loaded."""


class VcpuDevice(GroupDevice):
    """One vCPU of a group; its ``index`` is the device's instance id, and ``seed`` that of the migration."""

    idstr = "vcpu"
    # Each vCPU has a descriptor or an engine of its own, and the kernel a lock for each: what is shared, the board has.
    save_lock: ConfigLock = "own"
    load_lock: ConfigLock = "own"

    def __init__(self, group: VcpuGroup, index: int, seed: int, options: VcpuOptions) -> None:
        self.instance_id = index
        super().__init__(group, index, StateFormat("vcpu", group.machine.kind, [*group.machine.layout, PAGE]))
        self.config_job = options.save == "each"
        self._vcpu = group.machine.vcpus[index]
        self._thread = group.threads[index]
        self._seed = seed
        self._limit = options.limit_s
        self._state: VcpuState | None = None

    def save_setup(self) -> bytes:
        """Return the header of the config, for the destination to check while the machine still runs."""
        self._check()
        return self._format.header(self.instance_id)

    def stop(self) -> None:
        """Stop this vCPU, and let the others of the VM begin to stop."""
        self._check()
        self._group.ask_to_stand()
        self._thread.wait_standing(self._limit)

    def save_config(self) -> bytes:
        self._check()
        if not self._thread.standing:
            raise DeviceError(f"vCPU {self.instance_id} runs: stop it before its state is saved")
        self._state = self._vcpu.save()
        return self._encoded(self._state)

    def resume(self) -> None:
        self._refuse_closed()
        self._thread.recover()
        self._thread.go()

    def load_setup(self, data: bytes) -> None:
        self._check()
        self._format.check_header(self.instance_id, data)

    def load_config(self, data: bytes) -> None:
        """Load the registers and the page, and read them back for :meth:`fingerprint`."""
        self._check()
        if not self._thread.standing:
            raise DeviceError(f"vCPU {self.instance_id} runs: a state is loaded before it is started")
        registers = self._format.decode(self.instance_id, data)
        left_out = self._vcpu.load(VcpuState(registers, registers.pop("page")))
        self.note = self._group.noted(left_out)
        self._state = self._vcpu.save()
        self._group.loaded.add(self.instance_id)

    def start(self) -> None:
        self._check()
        if self._state is None:
            raise DeviceError(f"vCPU {self.instance_id} has no state yet: load its config before it is started")
        self._thread.go()

    def fingerprint(self) -> bytes | None:
        """The SHA-256 of the state as saved, or as read back after loading; without the time stamp counter."""
        if self._state is None:
            return None
        return hashlib.sha256(self._encoded(self._machine.comparable(self._state))).digest()

    def verify(self) -> None:
        """Prove that the guest has gone on correctly from the state that was saved or loaded.

        Proves that state first: a number in the page that arrived wrong would be overwritten soon. Then lets the guest
        run some batches, stops it for a moment to read it, and proves where it stands now. Works at the source, too, on
        a vCPU that runs.
        """
        self._refuse_closed()
        before = 0
        if self._state is not None:
            guest = self._guest(self._state)
            prove(guest, self._seed, more_than=-1)
            before = guest.iterations
        try:
            self._let_run()
            with self._stood() as state:
                found = self._guest(state)
        except DeviceError as error:
            if self._thread.aborted:
                raise
            raise VerificationError(error.message) from error
        prove(found, self._seed, before)

    def abort(self) -> None:
        self._thread.abort()

    def describe_config(self) -> Mapping[str, object] | None:
        return self._format.describe(self.instance_id, {**self._machine.blank, "page": bytes(PAGE_SIZE)})

    def _encoded(self, state: VcpuState) -> bytes:
        return self._format.encode(self.instance_id, {**state.registers, "page": state.page})

    def _let_run(self) -> None:
        if not self._thread.wait_batches(_BATCHES_TO_SEE, self._limit):
            raise DeviceError(f"vCPU {self.instance_id} has not ended {_BATCHES_TO_SEE} batches in {self._limit} s")

    @contextmanager
    def _stood(self) -> Iterator[VcpuState]:
        """The state of the vCPU, which stands until the end of the context."""
        self._thread.ask_to_stand()
        try:
            self._thread.wait_standing(self._limit)
            yield self._vcpu.save()
        finally:
            self._thread.go()

    def _guest(self, state: VcpuState) -> Guest:
        return Guest(self.instance_id, REGS.values(state.registers["regs"]), state.checksum, state.page)

    def _check(self) -> None:
        self._refuse_closed()
        self._thread.check()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DeviceError(f"vCPU {self.instance_id} is closed")
