"""The migration state of one emulated device, on the device process's side: states, config, digests.

The states and arcs are those of :mod:`migpool_plugins.vfio.migration`; a request over several of them is carried out
one by one, and one that fails leaves the device at the step it reached. What takes time: every arc on which the device
stops takes ``stop_time``, and the device stands still when it has passed. Leaving RESUMING the device judges what it
was given.

The migration data of VFIO has no config of its own. A device that migpool's own process serves has one all the same,
which migpool saves and loads last and which takes the profile's time under the big lock. A device that a foreign client
may use (``migpool vfio serve``) has none: it takes that time where a driver would, when it leaves RESUMING.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from errno import EINVAL, ENODEV
from typing import Final

from migpool_plugins.memory import Memory, shared_file
from migpool_plugins.vfio.content import BaseBlock, StateContent
from migpool_plugins.vfio.engines import PartsLoad, PartsSave
from migpool_plugins.vfio.migration import READABLE, WRITABLE, MigrationState, path
from migpool_plugins.vfio.profiles import DeviceProfile, Fault
from migpool_plugins.vfio.transfer import Emulated, Load, Refusal, SharedLock, Transfer
from migpool_plugins.vfio.transferkinds import (
    DescriptorLoad,
    DescriptorSave,
    DescriptorTransfer,
    RequestedLoad,
    RequestedSave,
)

CONFIG_HEADER: Final = struct.Struct("!8sQ32s")
"""Before the config's content: a magic, how many bytes of state were saved, the SHA-256 of the state."""
CONFIG_MAGIC: Final = b"vfioconf"

COMPARED: Final = 1 << 30
"""Bytes of state that are compared within a second, by far, while a config is loaded."""

_M = MigrationState
_RUNS: Final = frozenset({_M.RUNNING, _M.RUNNING_P2P, _M.PRE_COPY, _M.PRE_COPY_P2P})
_QUIET: Final = frozenset({_M.RUNNING_P2P, _M.PRE_COPY_P2P})


class DeviceState:
    """One device.

    Requests are carried out one after the other, whichever thread they come from; reads and writes of state are not
    held up by them, and come from one thread at a time.

    Arguments:
        idstr: the device's name; with the seed it decides the content.
        profile: sizes and pace.
        base: the process's base block.
        source: whether it can only save. Others have memory for what they receive.
        shared: the process's shared lock.
        fault: what goes wrong, once, while it saves, or loads if it only does that.
        configured: whether a config is saved and loaded last; see the module.
        load_fault: for a device that does both, what goes wrong while it loads.
    """

    def __init__(
        self,
        idstr: str,
        profile: DeviceProfile,
        base: BaseBlock,
        source: bool,
        shared: SharedLock,
        fault: Fault | None,
        configured: bool = True,
        load_fault: Fault | None = None,
    ) -> None:
        self.state = _M.RUNNING
        self.profile = profile
        # The data of parts, and what moves through a descriptor, cross in it.
        given = configured and profile.transport == "vfio-user" and not profile.engines
        self._content = StateContent(base, idstr, profile.size, profile.config_size, shared=given and source)
        saving = [fault] if fault is not None else []
        loading = [load_fault] if load_fault is not None else []
        self._device = Emulated(
            profile, self._content, shared, {"read": saving, "write": saving if configured else loading}
        )
        # What pre-copy brings may be replaced before it is looked at; parts come in no order that could be looked for.
        at_once = profile.precopy or profile.engines or profile.size > profile.load_config_time * COMPARED
        self._device.compares_later = configured and not at_once
        if configured and not source:
            descriptor = shared_file(profile.size) if given else -1
            self._device.received = Memory(profile.size, resident=True, descriptor=descriptor)
        self._source = source
        self._configured = configured
        self._lock = threading.RLock()
        self._transfer: Transfer | None = None
        self._prepared: DescriptorSave | None = None
        self._fresh = False
        self._moved = 0
        self._config_loaded = False
        self._refused: Refusal | None = None

    @property
    def memory(self) -> int:
        """The descriptor of the memory that the state is in, for the process that asked for this device; -1: none."""
        return (self._device.received or self._content.memory).descriptor

    def prepare(self) -> None:
        """Make what the next save needs ahead of time, as a driver allocates it: the descriptor and its thread."""
        with self._lock:
            if self._source and self._by_descriptor and self._prepared is None:
                self._prepared = DescriptorSave(self._device)

    def set_state(self, number: int) -> None:
        """Go to the state with this number, over as many arcs as it takes.

        Raises:
            Refusal: there is no such state or no way to it, or an arc failed; the device is where it came to.
        """
        try:
            target = MigrationState(number)
        except ValueError:
            raise Refusal(f"{number} is no migration state", errno=EINVAL) from None
        with self._lock:
            way = path(self.state, target, self.profile.flags)
            if way is None:
                text = f"a device that is in {self.state.name} cannot become {target.name}"
                raise Refusal(text, errno=EINVAL)
            for there in way:
                self._pass(there)

    def where(self) -> int:
        """Return the number of the state; a change that is under way is waited for."""
        with self._lock:
            return int(self.state)

    def _pass(self, there: MigrationState) -> None:
        here = self.state
        if here in WRITABLE:
            self._judge()
        if here in _RUNS and there not in _RUNS:
            _pass_time(self.profile.stop_time)
        if there in WRITABLE:
            self._begin(self._load())
        elif there in READABLE and here not in READABLE:
            self._begin(self._save(running=there in _RUNS))
        elif there not in READABLE:
            self._end_transfer()
        if there in READABLE and there in _RUNS and isinstance(self._transfer, RequestedSave):
            self._transfer.quiet(there in _QUIET)
        if there is _M.STOP_COPY and self._transfer is not None:
            self._transfer.begin()
        self.state = there

    def _judge(self) -> None:
        """Whether the device may run with what it was given. A refusal leaves it where it is."""
        if not isinstance(self._transfer, Load):
            return
        if self._configured:
            if not self._config_loaded:
                raise Refusal("the device cannot run before its config has been loaded", errno=EINVAL)
            return
        if self._transfer.error is not None:
            raise self._transfer.error
        if self._transfer.offset < self.profile.size:
            raise self._incomplete(self._transfer.offset, self.profile.size)
        _pass_time(self.profile.load_config_time)

    def reset(self) -> None:
        """Run again, whatever the state was; a transfer in progress ends."""
        # Ended before the lock is waited for: what holds it may be waiting for the transfer.
        self.interrupt()
        with self._lock:
            self._end_transfer()
            if self._prepared is not None:
                self._prepared.cancel()
                self._prepared = None
            self._config_loaded = False
            self.state = _M.RUNNING

    def take_descriptor(self) -> socket.socket | None:
        """Return the other process's end of a data descriptor that has been opened, once; ``None`` without one."""
        with self._lock:
            fresh, self._fresh = self._fresh, False
            return self._transfer.client_end if fresh and isinstance(self._transfer, DescriptorTransfer) else None

    def saving(self) -> RequestedSave:
        """Return the save in progress; a :class:`Refusal` in a state in which no state can be read."""
        with self._lock:
            if isinstance(self._transfer, PartsSave):
                raise Refusal("the device gives its state as parts with tags only", errno=EINVAL)
            if self.state not in READABLE or not isinstance(self._transfer, RequestedSave):
                raise Refusal(
                    f"state is read in PRE_COPY and STOP_COPY: the device is in {self.state.name}", errno=EINVAL
                )
            return self._transfer

    def loading(self) -> RequestedLoad:
        """Return the load in progress; a :class:`Refusal` outside RESUMING."""
        with self._lock:
            if isinstance(self._transfer, PartsLoad):
                raise Refusal("the device takes its state as parts with tags only", errno=EINVAL)
            if self.state not in WRITABLE or not isinstance(self._transfer, RequestedLoad):
                raise Refusal(f"state is written in RESUMING: the device is in {self.state.name}", errno=EINVAL)
            return self._transfer

    def saving_parts(self) -> PartsSave:
        """Return the save in parts in progress; a :class:`Refusal` if there is none."""
        with self._lock:
            if not isinstance(self._transfer, PartsSave):
                raise Refusal(f"no parts are read: {self._engines_and_state()}", errno=EINVAL)
            return self._transfer

    def loading_parts(self) -> PartsLoad:
        """Return the load in parts in progress; a :class:`Refusal` if there is none."""
        with self._lock:
            if not isinstance(self._transfer, PartsLoad):
                raise Refusal(f"no parts are written: {self._engines_and_state()}", errno=EINVAL)
            return self._transfer

    def _engines_and_state(self) -> str:
        return f"the device has {self.profile.engines} engines and is in {self.state.name}"

    def data_size(self) -> int:
        """How many bytes a stop-copy would read now."""
        with self._lock:
            transfer = self._transfer
            if isinstance(transfer, RequestedSave):
                return transfer.total - transfer.offset
            return self.profile.size - (transfer.offset if isinstance(transfer, DescriptorSave | PartsSave) else 0)

    def interrupt(self) -> None:
        """End a stall, since the client that waited for it has gone."""
        transfer = self._transfer
        if transfer is not None:
            transfer.interrupt()

    def finish_save(self) -> int:
        """Return how many bytes were given, once the end was seen; a :class:`Refusal` if that was not all."""
        transfer = self._in_state(_M.STOP_COPY, "nothing is being saved")
        if transfer.error is not None:
            raise transfer.error
        return transfer.offset

    def save_config(self) -> bytes:
        """Return the config, in the profile's time; a :class:`Refusal` unless the state has been saved whole."""
        transfer = self._in_state(_M.STOP_COPY, "the config is saved after the device has been stopped")
        total = transfer.total if isinstance(transfer, RequestedSave) else self.profile.size
        if transfer.offset != total:
            raise Refusal(f"the config is saved after all state, but {transfer.offset} of {total} bytes were read")
        _pass_time(self.profile.save_config_time)
        return CONFIG_HEADER.pack(CONFIG_MAGIC, total, self._content.digest) + self._content.config

    def load_config(self, data: bytes, called: float) -> None:
        """Check and take the config, in the profile's time.

        Arguments:
            called: when it was asked to, CLOCK_MONOTONIC in seconds.

        Raises:
            Refusal: the config, or the state, is not right.
        """
        due = called + self.profile.load_config_time
        transfer = self._in_state(_M.RESUMING, "the config came before the device was ready to load")
        if transfer.error is not None:
            raise transfer.error
        content, size = self._content, self.profile.size
        if transfer.offset < size:
            raise self._incomplete(transfer.offset, size)
        expected = CONFIG_HEADER.size + len(content.config)
        if len(data) != expected:
            raise Refusal(f"the config is {len(data)} bytes long, {expected} are right", "verification")
        magic, sent, digest = CONFIG_HEADER.unpack_from(data)
        if magic != CONFIG_MAGIC:
            raise Refusal("the config is not one of an emulated VFIO device", "verification")
        # What came is compared with the state, and so has the state's digest; here both ends' truths meet.
        if digest != content.digest or (sent != size and not self.profile.precopy):
            raise Refusal("the config belongs to another state: its size or digest differs", "verification")
        if sent != transfer.offset:
            raise self._incomplete(transfer.offset, sent)
        if data[CONFIG_HEADER.size :] != content.config:
            pairs = enumerate(zip(data[CONFIG_HEADER.size :], content.config, strict=True), CONFIG_HEADER.size)
            wrong = next(index for index, (came, right) in pairs if came != right)
            raise Refusal(f"the config differs at byte {wrong}", "verification")
        if isinstance(transfer, Load):
            transfer.compare_rest()
        _pass_time(due - time.monotonic())
        self._config_loaded = True

    @staticmethod
    def _incomplete(came: int, right: int) -> Refusal:
        return Refusal(f"the state is incomplete: {came} of {right} bytes have come", "verification", EINVAL)

    def fingerprint(self) -> bytes:
        """Return the SHA-256 of what was really sent, or received, in the last transfer; and of how often it was."""
        moved = self._transfer.offset if self._transfer is not None else self._moved
        memory = self._device.received or self._content.memory
        digest = hashlib.sha256(memory.view[: min(moved, self.profile.size)])
        if moved > self.profile.size:
            digest.update(moved.to_bytes(8, "big"))
        return digest.digest()

    def verify(self) -> None:
        """Check that a destination's device runs with the state that was sent; a :class:`Refusal` if it does not."""
        received = self._device.received
        if received is None or self.state is not _M.RUNNING or not self._config_loaded:
            raise Refusal("the device has not been loaded and started", "verification")
        wrong = self._content.first_difference(received, 0, self.profile.size)
        if wrong is not None:
            raise Refusal(f"content differs at byte {wrong} of the state", "verification")

    def record(self, last: int) -> list[tuple[float, float]]:
        """Return when the last chunks of the transfer in progress were worked on; see :class:`Pacer`."""
        return self._transfer.pacer.record[-last:] if self._transfer is not None else []

    def refuse(self, refusal: Refusal) -> None:
        """Keep why a request of vfio-user was refused, since its answer is but a number."""
        self._refused = refusal

    def why(self) -> None:
        """Raise what was kept last, once."""
        refused, self._refused = self._refused, None
        if refused is not None:
            raise refused

    def _in_state(self, state: MigrationState, otherwise: str) -> Transfer:
        with self._lock:
            if self.state is not state or self._transfer is None:
                raise Refusal(f"{otherwise}: the device is in {self.state.name}")
            return self._transfer

    def _begin(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._fresh = True
        if isinstance(transfer, DescriptorLoad):
            transfer.begin()

    @property
    def _by_descriptor(self) -> bool:
        return self.profile.transport == "descriptor" and not self.profile.engines

    def _save(self, running: bool) -> Transfer:
        if self.profile.engines:
            return PartsSave(self._device)
        if self.profile.transport == "vfio-user":
            return RequestedSave(self._device, running)
        prepared, self._prepared = self._prepared, None
        return prepared or DescriptorSave(self._device)

    def _load(self) -> Transfer:
        if self._source:
            raise Refusal("a source's device cannot load state", errno=ENODEV)
        self._config_loaded = False
        if self.profile.engines:
            return PartsLoad(self._device)
        return RequestedLoad(self._device) if self.profile.transport == "vfio-user" else DescriptorLoad(self._device)

    def _end_transfer(self) -> None:
        if self._transfer is not None:
            self._transfer.cancel()
            self._moved = self._transfer.offset
            self._transfer = None


def _pass_time(seconds: float) -> None:
    if seconds > 0:  # a sleep of no time gives the processor away, on a busy machine for milliseconds
        time.sleep(seconds)
