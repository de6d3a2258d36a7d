"""The emulated VFIO device as migpool sees it: a :class:`VfioDevice`, what only a made-up device has, and its backends.

Only a made-up device has a config of its own, digests of what was really moved, known costs of its work, and words for
what is wrong with a byte. All of it comes over the device process's control connection; states and data go the way that
the profile's ``transport`` says. With vfio-user, too, the device says on the control connection in words why it refused
something, which that protocol cannot, and how its process ended.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Sequence

from migpool.device import Device, DeviceContext, DeviceError, Side, StateCosts, VerificationError
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.client import DeviceClient, DeviceProcess
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.migration import READABLE, WRITABLE, MigrationState
from migpool_plugins.vfio.options import DeviceSettings, parse_options
from migpool_plugins.vfio.profiles import MAX_CHUNK, DeviceProfile
from migpool_plugins.vfio.vfiouser.backend import VfioUserBackend
from migpool_plugins.vfio.vfiouser.connection import Connection

MAKING_LIMIT = 60.0
"""Seconds that making the state may take: 64 MiB take a tenth of a second, the largest allowed state some twenty."""


def open_emulated(context: DeviceContext) -> list[Device]:
    """Start a device process and return its devices; see :func:`migpool_plugins.vfio.devices`."""
    settings = parse_options(context)
    process = DeviceProcess(len(settings))
    made: list[Device] = []
    try:
        for device in settings:
            connection = process.attach(device, context.side, context.seed)
            made.append(EmulatedVfioDevice(process, connection, device, context.side, settings))
    except BaseException:
        for device_made in made:
            device_made.close()
        process.end()
        raise
    return made


class EmulatedVfioDevice(VfioDevice):
    """One device of the device process.

    Arguments:
        process: the process; its end is said in an error.
        connection: this device's control connection.
        settings: name, profile and fault.
        side: which end of the migration this is.
        siblings: the settings of all devices of the entry, which may have to be waited for under a shared lock.
    """

    def __init__(
        self,
        process: DeviceProcess,
        connection: socket.socket,
        settings: DeviceSettings,
        side: Side,
        siblings: Sequence[DeviceSettings],
    ) -> None:
        self.profile = profile = settings.profile
        self.process = process
        self._short_read = settings.fault.at if settings.fault and settings.fault.kind == "short-read" else 0
        self._lock_name = f"{siblings[0].idstr} shared lock"
        longest = sum(max(s.profile.read_cost(s.profile.chunk), s.profile.write_cost(s.profile.size)) for s in siblings)
        self._limit = settings.time_limit + longest + profile.stop_time + profile.save_config_time
        self._client = DeviceClient(process, connection, settings.time_limit + longest)
        backend = (
            ServedBackend(self._client, profile, self._limit)
            if profile.transport == "vfio-user"
            else DescriptorBackend(self._client, profile, self._limit)
        )
        # Nobody can find the device after its process has ended, so it need not be left in order.
        super().__init__(settings.idstr, backend, side, read_size=profile.chunk, outlives=False)
        self._estimate = profile.size

    def save_setup(self) -> bytes:
        """Wait until the state has been made, and describe the device for the other side."""
        self._client.ask(object, "prepare", MAKING_LIMIT)
        super().save_setup()
        return json.dumps({"size": self.profile.size, "config_size": self.profile.config_size}).encode()

    def _read(self, buffer: memoryview, recovery: MigrationState) -> int:
        length = min(len(buffer), self.profile.chunk)
        if self._saved < self._short_read < self._saved + length:
            buffer, self._short_read = buffer[: self._short_read - self._saved], 0
        return super()._read(buffer, recovery)

    def save_config(self) -> bytes:
        """Return the config: the digest of the state, and made-up content; takes the profile's time."""
        return self._client.ask(bytes, "save_config", self._limit)

    def load_setup(self, data: bytes) -> None:
        """Wait until the state has been made and make ready to load, if the source's device has the same sizes."""
        if data:
            self._compare(data)
        self._client.ask(object, "prepare", MAKING_LIMIT)
        super().load_setup(b"")

    def _compare(self, data: bytes) -> None:
        try:
            theirs = json.loads(data)
        except ValueError:
            theirs = None
        if not isinstance(theirs, dict):
            raise DeviceError("the source's device is not an emulated VFIO device: give both sides the same devices")
        for key, ours in (("size", self.profile.size), ("config_size", self.profile.config_size)):
            if theirs.get(key) != ours:
                raise DeviceError(
                    f"{key} is {theirs.get(key)!r} at the source and {ours} here: give both sides the same options"
                )

    def load_config(self, data: bytes) -> None:
        """Load the config; takes the profile's time. Fails unless all state has been loaded and is the one saved."""
        self._guard.check()
        try:
            self._client.ask(object, "load_config", self._limit + self.profile.load_config_time, data)
        except DeviceError as error:
            raise self._spoiled(error) from None
        self._finish_loading()

    def fingerprint(self) -> bytes:
        """Return the SHA-256 of what was really read from, or written to, the device; computed now."""
        return self._client.ask(bytes, "fingerprint", MAKING_LIMIT)

    def verify(self) -> None:
        """Compare everything that was received with what the state must be, once more and as a whole."""
        self._client.ask(object, "verify", MAKING_LIMIT)

    def costs(self) -> StateCosts:
        profile = self.profile
        last = profile.size - (profile.chunks - 1) * profile.chunk
        whole = profile.chunks - 1
        return StateCosts(
            stop=profile.stop_time,
            read=whole * profile.read_cost(profile.chunk) + profile.read_cost(last),
            write_chunk=profile.write_cost(min(profile.chunk, profile.size)),
            write=whole * profile.write_cost(profile.chunk) + profile.write_cost(last),
            save_config=profile.save_config_time,
            load_config=profile.load_config_time,
            shared_lock=self._lock_name if profile.locks("read" if self._side == "source" else "write") else "",
        )

    def record(self, last: int = 1000) -> list[tuple[float, float]]:
        """Return when the device process worked on each of the last chunks: begin and end, CLOCK_MONOTONIC, seconds."""
        came = self._client.ask(list, "record", self._limit, last)
        return [(begin, end) for begin, end in came]


class DescriptorBackend:
    """A device whose state moves through a data descriptor; states and all else are asked on the control connection.

    Arguments:
        client: the device's connections; the backend owns them.
        profile: the device's.
        limit: seconds that a request may take.
    """

    def __init__(self, client: DeviceClient, profile: DeviceProfile, limit: float) -> None:
        self.note = "emulated VFIO"
        self.flags = profile.flags
        self.write_size = MAX_CHUNK
        self._client = client
        self._pollable = profile.pollable
        self._limit = limit
        self._came = 0
        self._ended = False

    def state(self) -> MigrationState:
        return MigrationState(self._client.ask(int, "where", self._limit))

    def set_state(self, target: MigrationState) -> None:
        if target in WRITABLE or target in READABLE:
            self._came = 0
            self._ended = False
        self._client.ask(object, "set_state", self._limit, int(target))

    def data_size(self) -> int | None:
        return self._client.ask(int, "data_size", self._limit)

    def precopy_info(self) -> None:
        return None

    def read(self, buffer: memoryview) -> int:
        count = self._client.read(buffer)
        self._came += count
        return count or self._finish()

    def _finish(self) -> int:
        if not self._ended:
            sent = self._client.ask(int, "finish_save", self._limit)
            if sent != self._came:
                raise BackendError(f"{sent} bytes of state were put in and {self._came} read")
            self._ended = True
        return 0

    def write(self, data: memoryview) -> None:
        self._client.write(data)

    def reset(self) -> None:
        """Reset the device; what it has begun by itself, a stop say, it finishes first."""
        self._client.ask(object, "reset", self._limit)

    def poll_fd(self) -> int | None:
        data = self._client.data
        return data.fileno() if self._pollable and data is not None else None

    def abort(self) -> None:
        self._client.abort()

    def renew(self) -> None:
        self._client.renew()

    def close(self) -> None:
        self._client.close()


class ServedBackend(VfioUserBackend):
    """A device spoken to in vfio-user, on connections that the control connection brings."""

    def __init__(self, client: DeviceClient, profile: DeviceProfile, limit: float) -> None:
        self._client = client
        self._limit = limit
        self._connect_limit = MAKING_LIMIT
        super().__init__(lambda _: self._connected(), "emulated device", flags=profile.flags, reason=self._why)
        self.note = "emulated VFIO"

    def _connected(self) -> Connection:
        self._client.ask(object, "connect", self._connect_limit)
        self._connect_limit = self._limit
        return Connection(self._client.take_data(), "emulated device", self._limit)

    def _why(self) -> DeviceError | None:
        try:
            self._client.ask(object, "why", self._limit)
        except VerificationError as reason:
            return reason
        except BackendError as reason:
            # A device process that answers nothing says nothing of the reason either.
            return None if reason.errno == errno.ETIMEDOUT else reason
        return None

    def abort(self) -> None:
        super().abort()
        self._client.abort()

    def renew(self) -> None:
        self._client.renew()
        super().renew()

    def close(self) -> None:
        super().close()
        self._client.close()
