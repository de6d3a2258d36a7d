"""The vCPUs of one VM and their board as devices: they run at the source, stop, move as one config each, and go on.

Which thread may touch a vCPU: its own while it runs, and any other once it stands, which :class:`VcpuThread` says.

The board is what the vCPUs share: interrupt controllers, timer and clock. It comes after the vCPUs: it is saved when
all of them stand, and loaded when all of them have their state, since loading an interrupt controller delivers what is
pending to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Literal

from migpool.device import ConfigLock, Device, DeviceError, VerificationError
from migpool_plugins.vcpu.backend import Stateful, VcpuMachine, VirtualCpu
from migpool_plugins.vcpu.options import VcpuOptions
from migpool_plugins.vcpu.program import Guest, prove
from migpool_plugins.vcpu.state import REGS, Sets, StateFormat, checksum
from migpool_plugins.vcpu.thread import VcpuThread

BOARD: Final = -1
"""Stands for the board where a vCPU has its index."""
_BATCHES_TO_SEE: Final = 3
"""Batches for which ``verify`` waits before it looks: enough to have left the one in which the state was loaded."""


class VcpuGroup:
    """The vCPUs of one VM and their board: they stop together, and the last one to close gives back the VM.

    Attributes:
        loaded: the vCPUs that have been given a state.
    """

    def __init__(self, machine: VcpuMachine, options: VcpuOptions) -> None:
        self.machine = machine
        self.threads: Sequence[VcpuThread] = [
            VcpuThread(vcpu.index, self.batch_of(vcpu), options.halt_ms / 1000) for vcpu in machine.vcpus
        ]
        self.loaded: set[int] = set()
        self._open = {BOARD, *range(len(self.threads))}
        self._limit = options.limit_s

    def batch_of(self, vcpu: VirtualCpu) -> Callable[[], None]:
        """Return what a vCPU's thread runs again and again: here, the guest to the end of a batch."""
        return vcpu.run_batch

    def noted(self, left_out: Sequence[str] = ()) -> str:
        """What a reader of the result should know: the backend, and what of a whole state this host lacks."""
        lacks = f" without {', '.join(self.machine.lacks)}" if self.machine.lacks else ""
        return f"{self.machine.name}{lacks}" + (f"; left out, unused: {', '.join(left_out)}" if left_out else "")

    @property
    def standing(self) -> bool:
        """Whether no vCPU runs, and none will until it is let go."""
        return all(thread.standing for thread in self.threads)

    def run(self, limit: float) -> None:
        """Let every vCPU go, and return when all run: within ``limit`` seconds, or with a :class:`DeviceError`."""
        for thread in self.threads:
            thread.go()
        for thread in self.threads:
            thread.wait_running(limit)

    def ask_to_stand(self) -> None:
        """Ask every vCPU to stop, so that the batches which they are in end at the same time."""
        for thread in self.threads:
            thread.ask_to_stand()

    def leave(self, index: int) -> None:
        """End the thread of a vCPU, none of :data:`BOARD`; the last gives the VM back. Harmless when repeated."""
        if index not in self._open:
            return
        if index != BOARD:
            self.threads[index].end(self.machine.expel, self._limit)
        self._open.discard(index)
        if not self._open:
            self.machine.close()


class GroupDevice(Device):
    """A device of a group's VM, whose whole state is one config that names every value.

    Arguments:
        group: the VM that it belongs to.
        member: the vCPU's index, or :data:`BOARD`.
        part: what of the VM it moves.
    """

    idstr: Literal["vcpu", "vcpu-board"]

    def __init__(self, group: VcpuGroup, member: int, part: Stateful) -> None:
        self.note = group.noted()
        self._group = group
        self._member = member
        self._part = part
        self._format = StateFormat(self.idstr, group.machine.kind, part.layout)
        self._state: Sets | None = None
        self._closed = False

    def save_config(self) -> bytes:
        self._state = self._part.save()
        return self._format.encode(self.instance_id, self._state)

    def load_config(self, data: bytes) -> None:
        """Load the state, and read it back for :meth:`fingerprint`."""
        self.note = self._group.noted(self._part.load(self._format.decode(self.instance_id, data)))
        self._state = self._part.save()

    def fingerprint(self) -> bytes | None:
        """Return the SHA-256 of the state as saved, or as read back after loading; without what goes on by itself."""
        if self._state is None:
            return None
        return hashlib.sha256(self._format.encode(self.instance_id, self._part.comparable(self._state))).digest()

    def describe_config(self) -> Mapping[str, object]:
        return self._format.describe(self.instance_id, self._part.blank)

    def close(self) -> None:
        self._closed = True
        self._group.leave(self._member)

    def exact_config(self) -> bool:
        return True

    def measure_config(self, data: memoryview) -> int | None:
        return self._format.measure(self.instance_id, data)


class VcpuDevice(GroupDevice):
    """One vCPU of a group; its ``index`` is the device's instance id, and ``seed`` that of the migration."""

    idstr = "vcpu"
    # Each vCPU has a descriptor or an engine of its own, and the kernel a lock for each: what is shared, the board has.
    save_lock: ConfigLock = "own"
    load_lock: ConfigLock = "own"

    def __init__(self, group: VcpuGroup, index: int, seed: int, options: VcpuOptions) -> None:
        self.instance_id = index
        super().__init__(group, index, group.machine.vcpus[index])
        self.config_job = options.save == "each"
        self._thread = group.threads[index]
        self._seed = seed
        self._limit = options.limit_s

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
        return super().save_config()

    def wake(self) -> None:
        self._refuse_closed()
        self._thread.recover()

    def resume(self) -> None:
        self._refuse_closed()
        self._thread.recover()
        self._thread.go()

    def load_setup(self, data: bytes) -> None:
        self._check()
        self._format.check_header(self.instance_id, data)

    def load_config(self, data: bytes) -> None:
        self._check()
        if not self._thread.standing:
            raise DeviceError(f"vCPU {self.instance_id} runs: a state is loaded before it is started")
        super().load_config(data)
        self._group.loaded.add(self.instance_id)

    def start(self) -> None:
        self._check()
        if self._state is None:
            raise DeviceError(f"vCPU {self.instance_id} has no state yet: load its config before it is started")
        self._thread.go()

    def verify(self) -> None:
        """Prove that the guest has gone on correctly from the state that was saved or loaded.

        Proves that state first: a number in the page that arrived wrong would be overwritten soon. Then lets the guest
        run some batches, stops it for a moment to read it, and proves where it stands now. Works at the source, too, on
        a vCPU that runs.
        """
        self._refuse_closed()
        before = self._proved_before()
        try:
            if not self._thread.wait_batches(_BATCHES_TO_SEE, self._limit):
                raise DeviceError(f"vCPU {self.instance_id} has not ended {_BATCHES_TO_SEE} batches in {self._limit} s")
            self._prove(before)
        except DeviceError as error:
            if self._thread.aborted or isinstance(error, VerificationError):
                raise
            raise VerificationError(error.message) from error

    def _proved_before(self) -> int:
        """Prove the state that was saved or loaded, and return how far the guest was then."""
        if self._state is None:
            return 0
        guest = self._guest(self._state)
        prove(guest, self._seed, more_than=-1)
        return guest.iterations

    def _prove(self, before: int) -> None:
        """Prove that the guest has gone on correctly, from ``before``."""
        with self._stood() as state:
            guest = self._guest(state)
        prove(guest, self._seed, before)

    def abort(self) -> None:
        self._thread.abort()

    @contextmanager
    def _stood(self) -> Iterator[Sets]:
        """The state of the vCPU, which stands until the end of the context."""
        self._thread.ask_to_stand()
        try:
            self._thread.wait_standing(self._limit)
            yield self._part.save()
        finally:
            self._thread.go()

    def _guest(self, state: Sets) -> Guest:
        return Guest(self.instance_id, REGS.values(state["regs"]), checksum(state), state["page"])

    def _check(self) -> None:
        self._refuse_closed()
        self._thread.check()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DeviceError(f"vCPU {self.instance_id} is closed")


class BoardDevice(GroupDevice):
    """The board of a group's machine. With a backend that has none its config is a header alone."""

    idstr = "vcpu-board"

    def __init__(self, group: VcpuGroup) -> None:
        super().__init__(group, BOARD, group.machine.board)
        self.after = [f"vcpu#{vcpu.index}" if vcpu.index else "vcpu" for vcpu in group.machine.vcpus]
        self._aborted = False

    def save_config(self) -> bytes:
        self._check()
        if not self._group.standing:
            raise DeviceError("a vCPU runs: stop every vCPU before what they share is saved")
        return super().save_config()

    def resume(self) -> None:
        self._aborted = False

    def load_config(self, data: bytes) -> None:
        self._check()
        missing = sorted(set(range(len(self._group.threads))) - self._group.loaded)
        if missing:
            raise DeviceError(f"vCPU {missing[0]} has no state yet: what the vCPUs share is loaded after them")
        if not self._group.standing:
            raise DeviceError("a vCPU runs: what they share is loaded before they are started")
        super().load_config(data)

    def abort(self) -> None:
        self._aborted = True

    def _check(self) -> None:
        if self._closed:
            raise DeviceError("the board of the vCPUs is closed")
        if self._aborted:
            raise DeviceError("the board of the vCPUs: the migration was aborted")
