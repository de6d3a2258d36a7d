"""A device of the host, through its kernel driver: :class:`migpool_plugins.vfio.backend.Backend` over ioctls.

Guarantees:

* A data descriptor is kept from the request that brings it until the device leaves the states in which it is valid; a
  request from PRE_COPY to STOP_COPY brings none (-1), and the one there is goes on.
* A write that failed is never followed by another, nor by a request to leave RESUMING: the driver may have taken half
  of it, and some take what comes next as if nothing had been. Only a reset leads out.
* A device that is closed runs: where the device class did not see to it, a reset does, or the next user would find it
  in the midst of a migration.
* No descriptor of somebody else's is ever touched: ``abort`` writes to an event descriptor alone
  (``migpool_plugins/vfio/backend.py``).

Waits end at once where a driver lets them. A driver that can say when data is there (epoll accepts its descriptor;
mlx5's does for saving) is waited for by polling beside the event descriptor, with the time limit, and read without
blocking. Any other driver's read or write, and every ioctl, is a call that nothing here can end: the caller gets its
error when the driver has returned, after the driver's own time limits.
"""

from __future__ import annotations

import errno
import os
import select
import time
from contextlib import suppress
from typing import Final

from migpool_plugins.vfio.backend import BackendError, Interruption
from migpool_plugins.vfio.kernel import abi
from migpool_plugins.vfio.kernel.abi import Calls, get_data_size, get_flags, get_state, refusal, set_state
from migpool_plugins.vfio.kernel.access import DeviceAccess
from migpool_plugins.vfio.migration import PRE_COPY, READABLE, WRITABLE, Flags, MigrationState

_WRITE_SIZE: Final = 1 << 20
_NOTHING_NOW: Final = frozenset({errno.ENOMSG, errno.EAGAIN})
"""How a driver says in PRE_COPY that it has no more until something changes."""


class _Data:
    """A data descriptor, owned, that came with a state; ``wake`` is the descriptor that ends a wait for it."""

    def __init__(self, fd: int, state: MigrationState, wake: int) -> None:
        self.fd = fd
        self.loading = state in WRITABLE
        self.pollable = _epoll_accepts(fd)
        self.poll = select.poll()
        self.poll.register(wake, select.POLLIN)
        if self.pollable:
            self.poll.register(fd, select.POLLOUT if self.loading else select.POLLIN)
            os.set_blocking(fd, False)

    def good_in(self, state: MigrationState) -> bool:
        """Whether a device in a state still has something to do with it."""
        return state in (WRITABLE if self.loading else READABLE)


class KernelBackend:
    """One device behind its driver.

    Arguments:
        access: the open device; owned from now on.
        calls: the kernel.
        time_limit: seconds that a wait for a descriptor may take.

    Attributes:
        fd: the device's descriptor, for its regions.

    Raises:
        BackendError: the driver cannot migrate the device; it is closed then.
    """

    def __init__(self, access: DeviceAccess, calls: Calls, time_limit: float) -> None:
        self.name = access.device.name
        self.fd = access.fd
        self.note = access.note
        self.write_size = _WRITE_SIZE
        self._access = access
        self._calls = calls
        self._limit = time_limit
        self._data: _Data | None = None
        self._state = MigrationState.RUNNING
        self._failed: BackendError | None = None
        try:
            self.flags = self._ask_flags()
            self._ask_state()
            self._interruption = Interruption(self.name)
        except BaseException:
            access.close()
            raise

    def _ask_flags(self) -> Flags:
        try:
            flags = get_flags(self._calls, self.fd)
        except OSError as error:
            remedy = f"the driver {self._access.device.driver} has no migration of version 2, use one that has"
            raise refusal(self.name, "to say whether it can migrate", error, remedy) from None
        if Flags.STOP_COPY not in flags:
            raise BackendError(f"{self.name} has no stop-copy, without which no state can be saved")
        return flags

    def state(self) -> MigrationState:
        self._interruption.check()
        return self._ask_state()

    def _ask_state(self) -> MigrationState:
        try:
            self._state = get_state(self._calls, self.fd)
        except OSError as error:
            raise refusal(self.name, "to say its state", error, "see the kernel's log, then reset it") from None
        return self._state

    def set_state(self, target: MigrationState) -> None:
        self._interruption.check()
        self._check_writes()
        begun = self._state
        try:
            descriptor = set_state(self._calls, self.fd, target)
        except OSError as error:
            reached = self._ask_state()
            self._keep(reached)
            begun_in = f" from {begun.name}" if begun is not reached else ""
            what = f"to become {target.name}{begun_in} and is {reached.name}"
            raise refusal(self.name, what, error, _state_remedy(reached, error)) from None
        self._state = target
        if descriptor >= 0:
            self._drop_data()
            self._data = _Data(descriptor, target, self._interruption.fd)
        self._keep(target)
        self._interruption.check()

    def _keep(self, state: MigrationState) -> None:
        """Close the data descriptor if the device has left the states in which it is good."""
        if self._data is not None and not self._data.good_in(state):
            self._drop_data()

    def reset(self) -> None:
        self._interruption.check()
        self._reset()

    def _reset(self) -> None:
        try:
            self._calls.ioctl(self.fd, abi.DEVICE_RESET.number, 0)
        except OSError as error:
            raise refusal(self.name, "to be reset", error, "unbind it from its driver and bind it again") from None
        self._drop_data()
        self._state = MigrationState.RUNNING
        self._failed = None

    def data_size(self) -> int | None:
        self._interruption.check()
        try:
            return get_data_size(self._calls, self.fd)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
                return None
            raise refusal(self.name, "to say how much it has to save", error, "see the kernel's log") from None

    def precopy_info(self) -> tuple[int, int] | None:
        data = self._data_for("pre-copy information", loading=False)
        argument = bytearray(abi.PRECOPY_INFO.pack(abi.PRECOPY_INFO.size, 0, 0, 0))
        try:
            self._calls.ioctl(data.fd, abi.MIG_GET_PRECOPY_INFO.number, argument)
        except OSError as error:
            if error.errno == errno.ENOTTY:
                return None
            remedy = f"it is {self._ask_state().name}, and says so in PRE_COPY only"
            raise refusal(self.name, "to say what is left to pre-copy", error, remedy) from None
        _size, _flags, initial, dirty = abi.PRECOPY_INFO.unpack(argument)
        return initial, dirty

    def read(self, buffer: memoryview) -> int:
        data = self._data_for("a read", loading=False)
        pre_copy = self._state in PRE_COPY
        deadline = time.monotonic() + self._limit
        while True:
            if data.pollable and not pre_copy:
                self._wait(data, "read", deadline)
            try:
                count = self._calls.read(data.fd, buffer)
            except OSError as error:
                if pre_copy and error.errno in _NOTHING_NOW:
                    return 0
                if data.pollable and error.errno == errno.EAGAIN:
                    continue
                remedy = f"its save is lost ({self._ask_state().name}): set it running, or reset it, and begin again"
                raise refusal(self.name, "a read of its state", error, remedy) from None
            if self._interruption.raised:
                self._interruption.check()
            return count

    def write(self, data: memoryview) -> None:
        descriptor = self._data_for("a write", loading=True)
        self._check_writes()
        view = data.cast("B")
        deadline = time.monotonic() + self._limit
        while view:
            if descriptor.pollable:
                self._wait(descriptor, "write", deadline)
            try:
                count = self._calls.write(descriptor.fd, view[: self.write_size])
            except OSError as error:
                if descriptor.pollable and error.errno == errno.EAGAIN:
                    continue
                self._failed = refusal(self.name, "a write of its state", error, _write_remedy(error))
                raise self._failed from None
            if not count:
                self._failed = BackendError(f"{self.name} took nothing of a write: reset it, and begin again")
                raise self._failed
            view = view[count:]
            if self._interruption.raised:
                self._interruption.check()

    def poll_fd(self) -> int | None:
        data = self._data
        return data.fd if data is not None and data.pollable and not data.loading else None

    def _data_for(self, what: str, *, loading: bool) -> _Data:
        self._interruption.check()
        data = self._data
        if data is None or data.loading is not loading:
            states = " or ".join(sorted(state.name for state in (WRITABLE if loading else READABLE)))
            raise BackendError(f"{self.name} is {self._ask_state().name}: {what} needs {states}", errno.EINVAL)
        return data

    def _wait(self, data: _Data, what: str, deadline: float) -> None:
        """Wait until a descriptor is ready, without taking its data."""
        ready = data.poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        self._interruption.check()
        if not ready:
            raise BackendError(f"{self.name}'s {what} did not begin within {self._limit:.3g} s")

    def _check_writes(self) -> None:
        failed = self._failed
        if failed is not None:
            raise BackendError(f"{failed.message}; until it is reset nothing more is asked of it", failed.errno)

    def abort(self) -> None:
        self._interruption.interrupt()

    def renew(self, patience: float | None = None) -> None:  # noqa: ARG002 - no driver is connected to anew
        self._interruption.take_back()

    def close(self) -> None:
        if not self._interruption.close():
            return
        with suppress(BackendError):
            if self._ask_state() is not MigrationState.RUNNING:
                self._reset()
        self._drop_data()
        self._access.close()

    def _drop_data(self) -> None:
        if self._data is not None:
            os.close(self._data.fd)
            self._data = None


def _epoll_accepts(fd: int) -> bool:
    """Whether a descriptor can really be waited on.

    ``poll`` calls a descriptor ready at once whose driver cannot say when it is; only epoll refuses it (EPERM).
    """
    with select.epoll(1) as selector, suppress(PermissionError):
        selector.register(fd, select.EPOLLIN)
        return True
    return False


def _state_remedy(reached: MigrationState, error: OSError) -> str:
    if reached is MigrationState.ERROR:
        return "reset it"
    if error.errno != errno.EINVAL:
        return "see the kernel's log"
    if reached is MigrationState.RESUMING:
        return "what was written is no complete state of this device: write the rest, or reset it"
    return "no way leads there from here"


def _write_remedy(error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return "there is more state than the device has: give both sides devices of the same type; reset this one"
    if error.errno == errno.ENODEV:
        return "it is no longer RESUMING: reset it, and begin again"
    return "it is no state of such a device, or is damaged: give both sides the same type and driver; reset this one"
