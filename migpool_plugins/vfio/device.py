"""One VFIO device, whatever is behind it: :class:`migpool.device.Device` on top of a :class:`Backend`.

Which call moves which state (``migration.py`` has the arcs; those in brackets only where the device can)::

    source       save_setup   RUNNING -> [PRE_COPY]           destination   load_setup   RUNNING -> RESUMING
                 quiesce      -> [PRE_COPY_P2P | RUNNING_P2P]               load_config  RESUMING -> STOP
                 stop         -> STOP_COPY                                  wake         STOP -> [RUNNING_P2P]
                 wake         -> [RUNNING_P2P]                              start        -> RUNNING
                 resume       -> RUNNING

Guarantees:

* What fails is seen to by ``guard.py``, with the state that fits the call.
* What can go wrong with loaded state goes wrong in ``load_config``: the device leaves RESUMING there, which is where a
  driver judges what it was given, and not when the machine is about to run.
* A device that an earlier user left in the middle of a migration is brought back to RUNNING before it is used, and says
  so in ``note``; one that is closed elsewhere is brought there first, since closing alone does not leave the state. One
  that cannot be, or that is to be saved and may hold half of what it was given, is refused.
* At the source a server that has not answered does not keep the other devices waiting.
"""

from __future__ import annotations

import struct
from typing import Final

from migpool.device import Device, DeviceBusy, DeviceError, Pending, Side, VerificationError
from migpool_plugins.vfio.backend import Backend, BackendError, NoAnswer
from migpool_plugins.vfio.guard import REMEDY, Guard
from migpool_plugins.vfio.migration import Flags, MigrationState

CONFIG: Final = struct.Struct("!8sQ")
"""migpool's config of a VFIO device, whose migration data has none of its own: a magic, and how many bytes of state
were saved, so that a tail that is missing is found whatever the driver thinks of it."""
CONFIG_MAGIC: Final = b"vfiodone"
UNKNOWN_ROUND: Final = 256 << 20
"""Bytes to read in a round from a device that cannot say what it has for pre-copy."""
WAKE_PATIENCE: Final = 0.25
"""Seconds for a server to answer again at the source, before the other devices run without it."""

_M = MigrationState


class VfioDevice(Device):
    """A device behind a backend, which it owns from now on.

    What state it has only the device knows: no request of the interface tells.

    Arguments:
        idstr: the device's name in the stream.
        backend: the device.
        side: which end of the migration this is.
        precopy: whether to read state while the machine runs, if the device can.
        read_size: bytes to ask for in one read at the most; 0: as much as the buffer holds.
        outlives: whether the device goes on to exist when it is closed, and so must be left in RUNNING.
        reaches: whether it begins something towards other devices by itself.
    """

    instance_id = 0
    version = 1
    iterable = True
    comparable = False

    def __init__(
        self,
        idstr: str,
        backend: Backend,
        side: Side,
        *,
        precopy: bool = True,
        read_size: int = 0,
        outlives: bool = True,
        reaches: bool = True,
    ) -> None:
        self.idstr = idstr
        self.backend = backend
        self._guard = Guard(backend, self._forget)
        self.note = backend.note
        self.peer_to_peer = Flags.P2P in backend.flags if reaches else None
        self._side = side
        self._precopy = precopy and Flags.PRE_COPY in backend.flags
        self._read_size = read_size
        self._outlives = outlives
        self._in_precopy = False
        self._exhausted = False
        self._stopped = False
        self._estimate = 0
        self._saved = 0
        self._loading = False
        self._loaded = 0

    def save_setup(self) -> bytes:
        """Make sure that the device runs, begin to pre-copy if it can, and estimate how much there is to save."""
        self._take_over()
        if self._precopy:
            self._guard.go(_M.PRE_COPY, _M.RUNNING)
            self._in_precopy = True
            self._exhausted = False
        self._estimate = self._guard.ask(self.backend.data_size, _M.RUNNING) or 0
        return b""

    def pending(self) -> Pending:
        """What is left, by the device's own account, or by its estimate where it cannot say.

        A device that cannot say what is left to pre-copy is read until it has nothing, once.
        """
        if not self._in_precopy:
            return Pending(stopcopy=max(0, self._estimate - self._saved))
        info = self._guard.ask(self.backend.precopy_info, _M.RUNNING)
        if info is None:
            if self._exhausted:
                return Pending(stopcopy=max(0, self._estimate - self._saved))
            return Pending(precopy=max(UNKNOWN_ROUND, self._estimate), stopcopy=self._estimate, guessed=True)
        initial, dirty = info
        return Pending(initial + dirty, max(0, self._estimate - initial - dirty), initial)

    def iterate(self, buffer: memoryview) -> int:
        """Read the next part of what a running device has to give; 0 when there is nothing just now."""
        if not self._in_precopy:
            return 0
        count = self._read(buffer, _M.RUNNING)
        self._exhausted = not count
        return count

    def quiesce(self) -> None:
        """Let the device begin nothing towards its peers any more, if it knows how to; takes as long as it takes."""
        if self.peer_to_peer:
            self._guard.go(_M.PRE_COPY_P2P if self._in_precopy else _M.RUNNING_P2P, _M.RUNNING)

    def stop(self) -> None:
        """Stop the device, its state ready to be read. If it cannot, it is stopped at least, until ``wake``."""
        if self._stopped:
            self._guard.check()
            raise DeviceError("the device has been stopped before: resume it first")
        self._guard.go(_M.STOP_COPY, _M.STOP)
        self._stopped = True
        if self._in_precopy:
            self._estimate = self._saved + (self._guard.ask(self.backend.data_size, _M.STOP) or 0)
        self._in_precopy = False

    def save_state(self, buffer: memoryview) -> int:
        """Read the next part of the state straight into ``buffer``; 0 at the end."""
        if not self._stopped:
            self._guard.check()
            raise DeviceError("the device has not been stopped: there is no state to read yet")
        return self._read(buffer, _M.STOP)

    def save_config(self) -> bytes:
        self._guard.check()
        return CONFIG.pack(CONFIG_MAGIC, self._saved)

    def load_setup(self, data: bytes) -> None:  # noqa: ARG002 - a device of another kind may have put something there
        """Make sure that the device is not in the middle of something, and let it take state."""
        self._take_over()
        self._guard.failure = None
        self._loaded = 0
        self._guard.go(_M.RESUMING, _M.RUNNING)
        self._loading = True

    def load_state(self, data: memoryview) -> None:
        if not self._loading:
            self._guard.check()
            raise DeviceError("the device has not been set up to load: there is no descriptor to write to")
        try:
            self.backend.write(data)
        except DeviceError as error:
            raise self._spoiled(error) from None
        self._loaded += len(data)

    def load_config(self, data: bytes) -> None:
        """Compare what was loaded with what was saved, and let the device judge it: it leaves RESUMING."""
        self._guard.check()
        try:
            magic, saved = CONFIG.unpack(data)
        except struct.error:
            magic, saved = b"", 0
        if magic != CONFIG_MAGIC:
            raise self._spoiled(VerificationError("the config is not one of a VFIO device: give both ends the same"))
        if saved != self._loaded:
            raise self._spoiled(
                VerificationError(f"the state is incomplete: {self._loaded} of {saved} bytes have come")
            )
        self._finish_loading()

    def _finish_loading(self) -> None:
        """Leave RESUMING, where a driver judges the state; a device that does not like it is reset."""
        try:
            self.backend.set_state(_M.STOP)
        except DeviceError as error:
            raise self._spoiled(error) from None
        self._loading = False

    def start(self) -> None:
        self._guard.check()
        self._guard.go(_M.RUNNING, None)

    def wake(self) -> None:
        """Let the device answer its peers, if it knows the difference, without beginning anything. Takes back an abort.

        At the source a device that was not even quiet stays as it is.
        """
        self._renew(WAKE_PATIENCE if self._side == "source" else None)
        if self._side == "source":
            try:
                state = self._guard.ask(self.backend.state, None)
            except NoAnswer as error:
                raise DeviceBusy(str(error)) from None
            if not self.peer_to_peer or state in (_M.RUNNING, _M.RUNNING_P2P, _M.PRE_COPY, _M.ERROR):
                return
        elif not self.peer_to_peer:
            return
        self._guard.check()
        self._guard.go(_M.RUNNING_P2P, _M.RUNNING if self._side == "source" else None)

    def resume(self) -> None:
        """Run again at the source with the state it has, and be ready to be saved from the beginning.

        Harmless in every case. A device in ERROR, or one that refuses to run, is reset, which loses its state: that is
        an error, and says so.
        """
        self._renew()
        self._forget()
        if self._guard.ask(self.backend.state, None) is not _M.RUNNING:
            self._guard.go(_M.RUNNING, None)

    def verify(self) -> None:
        """Ask the device whether it runs; raises :class:`VerificationError` if it does not."""
        state = self._guard.ask(self.backend.state, None)
        if state is not _M.RUNNING:
            raise VerificationError(f"the device is in {state.name}, not in RUNNING")

    def abort(self) -> None:
        self._guard.abort()

    def close(self) -> None:
        """Leave the device in RUNNING, by a reset if it is elsewhere, and give back everything."""
        self._guard.close(outlives=self._outlives)

    def poll_fd(self) -> int | None:
        return self.backend.poll_fd() if self._side == "source" and not self._guard.closed else None

    def _take_over(self) -> None:
        """Bring a device that an earlier user left in the middle of a migration back to RUNNING."""
        self._guard.check()
        self._forget()
        state = self._guard.ask(self.backend.state, None)
        if state is _M.RUNNING:
            return
        found = f"found in {state.name}"
        try:
            restored = self._guard.restore()
        except BackendError as error:
            raise BackendError(f"{found}: {error}", error.errno) from None
        if not restored.emptied and self._side == "source" and state in (_M.RESUMING, _M.ERROR):
            raise BackendError(f"{found}: {restored.said}, so it may hold half of a state: {REMEDY}")
        how = "reset" if restored.emptied else "led out of it"
        self.note = f"{self.backend.note}, {found} and {how}".removeprefix(", ")

    def _forget(self) -> None:
        self._in_precopy = self._stopped = self._loading = self._exhausted = False
        self._saved = 0

    def _read(self, buffer: memoryview, recovery: MigrationState) -> int:
        if self._read_size and self._read_size < len(buffer):
            buffer = buffer[: self._read_size]
        # Said out, and not through Guard.ask: a call less for each chunk.
        try:
            count = self.backend.read(buffer)
        except BackendError as error:
            raise self._guard.recovered(error, recovery) from None
        self._saved += count
        return count

    def _spoiled(self, error: DeviceError) -> DeviceError:
        """Have a device reset whose state must not be used; returns the error."""
        reason = self._guard.spoiled(error)
        if self._guard.failure is not None:
            self._loading = False
        return reason

    def _renew(self, patience: float | None = None) -> None:
        self._guard.renew(patience)
        if self._side == "source":
            self._guard.failure = None
