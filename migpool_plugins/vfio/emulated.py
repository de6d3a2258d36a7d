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
import time
from collections.abc import Sequence
from contextlib import ExitStack

from migpool.device import Device, DeviceContext, DeviceError, Side, StateCosts
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.client import DeviceClient, DeviceProcess, refusal
from migpool_plugins.vfio.costs import costs_of, shared_by_engines
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.engineclient import DescriptorEngine
from migpool_plugins.vfio.migration import READABLE, WRITABLE, MigrationState
from migpool_plugins.vfio.options import DeviceSettings, parse_options
from migpool_plugins.vfio.profiles import MAX_CHUNK, DeviceProfile
from migpool_plugins.vfio.served import MAKING_LIMIT, ServedBackend
from migpool_plugins.vfio.tagged import TaggedVfioDevice
from migpool_plugins.vfio.transferkinds import ACK_HEADER, ACK_KINDS, WRITE_HEADER


def open_emulated(context: DeviceContext) -> list[Device]:
    """Start a device process and return its devices; see :func:`migpool_plugins.vfio.devices`."""
    settings = parse_options(context)
    process = DeviceProcess(len(settings))
    made: list[Device] = []
    with ExitStack() as opened:
        opened.callback(process.end)
        for device in settings:
            connection = process.attach(device, context.side, context.seed)
            kind = TaggedEmulatedDevice if device.profile.engines else EmulatedVfioDevice
            made.append(kind(process, connection, device, context.side, settings))
            opened.callback(made[-1].close)
        opened.pop_all()
    return made


class EmulatedVfioDevice(VfioDevice):
    """One device of the device process, which knows what state it has.

    Arguments:
        process: the process; its end is said in an error.
        connection: this device's control connection.
        settings: name, profile and fault.
        side: which end of the migration this is.
        siblings: the settings of all devices of the entry, which may have to be waited for under a shared lock.
    """

    comparable = True

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
        data_limit = settings.time_limit + longest
        self._limit = data_limit + profile.stop_time + profile.save_config_time
        self._client: DeviceClient
        backend: ServedBackend | DescriptorBackend
        if profile.transport == "vfio-user":
            self._client = DeviceClient(process, connection, data_limit)
            backend = ServedBackend(self._client, profile, self._limit)
        else:
            self._client = backend = DescriptorBackend(process, connection, data_limit, profile, self._limit)
        # Nobody can find the device after its process has ended, so it need not be left in order.
        super().__init__(settings.idstr, backend, side, read_size=profile.chunk, outlives=False)
        self._engine_backend = backend
        self._estimate = profile.size

    def save_setup(self) -> bytes:
        """Wait until the state has been made, and describe the device for the other side."""
        self._client.ask(object, "prepare", MAKING_LIMIT)
        super().save_setup()
        described = {"size": self.profile.size, "config_size": self.profile.config_size}
        return json.dumps(described | ({"tags": True} if self.profile.engines else {})).encode()

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

        if theirs.get("tags", False) != bool(self.profile.engines):
            raise DeviceError(
                "one side's device gives parts with tags, the other's does not: give both engines or none"
            )

    def load_config(self, data: bytes) -> None:
        """Load the config; takes the profile's time. Fails unless all state has been loaded and is the one saved."""
        self._guard.check()
        try:
            limit = self._limit + self.profile.load_config_time
            self._client.ask(object, "load_config", limit, data, time.monotonic())
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
        return costs_of(self.profile, self._side, self._lock_name)

    def record(self, last: int = 1000) -> list[tuple[float, float]]:
        """Return when the device process worked on each of the last chunks: begin and end, CLOCK_MONOTONIC, seconds."""
        came = self._client.ask(list, "record", self._limit, last)
        return [(begin, end) for begin, end in came]


class TaggedEmulatedDevice(TaggedVfioDevice, EmulatedVfioDevice):
    """One device of the device process, with engines; as :class:`EmulatedVfioDevice` otherwise."""

    def __init__(
        self,
        process: DeviceProcess,
        connection: socket.socket,
        settings: DeviceSettings,
        side: Side,
        siblings: Sequence[DeviceSettings],
    ) -> None:
        super().__init__(process, connection, settings, side, siblings)
        self.serve_with(self.profile.engines, self._engine_backend)

    def costs(self) -> StateCosts:
        return shared_by_engines(super().costs(), self.profile)


class DescriptorBackend(DeviceClient):
    """A device whose state moves through a data descriptor; states and all else are asked on the control connection.

    Arguments:
        process, connection, data_limit: as :class:`DeviceClient` takes them.
        profile: the device's.
        limit: seconds that a request may take.
    """

    def __init__(
        self,
        process: DeviceProcess,
        connection: socket.socket,
        data_limit: float,
        profile: DeviceProfile,
        limit: float,
    ) -> None:
        super().__init__(process, connection, data_limit)
        self.note = "emulated VFIO"
        self.flags = profile.flags
        self.write_size = MAX_CHUNK
        self._pollable = profile.pollable
        self._limit = limit
        self._returned = 0.0
        self._came = 0
        self._ended = False

    def state(self) -> MigrationState:
        return MigrationState(self.ask(int, "where", self._limit))

    def set_state(self, target: MigrationState) -> None:
        if target in WRITABLE or target in READABLE:
            self._came = 0
            self._ended = False
        self.ask(object, "set_state", self._limit, int(target))

    def data_size(self) -> int | None:
        return self.ask(int, "data_size", self._limit)

    def precopy_info(self) -> None:
        return None

    def read(self, buffer: memoryview) -> int:
        """Read state straight into ``buffer``, as much as there is; 0 at the end. Raises as :meth:`ask` does."""
        data = self._open_data()
        try:
            count = data.recv_into(buffer, 0, socket.MSG_WAITALL)
        except BlockingIOError:
            raise self._late("read") from None
        except OSError as error:
            raise self._broken(error) from None
        if self._interruption.raised:
            self._interruption.check()
        self._came += count
        return count or self._finish()

    def _finish(self) -> int:
        if not self._ended:
            sent = self.ask(int, "finish_save", self._limit)
            if sent != self._came:
                raise BackendError(f"{sent} bytes of state were put in and {self._came} read")
            self._ended = True
        return 0

    def write(self, data: memoryview) -> None:
        """Write a part of the state and wait until the device has taken and checked it."""
        connection = self._open_data()
        header = WRITE_HEADER.pack(len(data), time.monotonic(), self._returned)
        try:
            sent = connection.sendmsg((header, data))
            if sent < len(header) + len(data):
                # A signal came while the socket was full.
                connection.sendall(header[sent:])
                connection.sendall(data[max(0, sent - len(header)) :])
            answer = connection.recv(ACK_HEADER.size, socket.MSG_WAITALL)
            if len(answer) == ACK_HEADER.size:
                kind, text_length = ACK_HEADER.unpack(answer)
                text = connection.recv(text_length, socket.MSG_WAITALL) if text_length else b""
        except BlockingIOError:
            raise self._late("write") from None
        except OSError as error:
            raise self._broken(error) from None
        self._returned = time.monotonic()
        self._interruption.check()
        if len(answer) != ACK_HEADER.size:
            raise self._broken(None)
        if kind:
            raise refusal(ACK_KINDS[kind], text.decode())

    def _open_data(self) -> socket.socket:
        if self._data is None:
            self._interruption.check()
            raise BackendError("the device opened no data descriptor")
        return self._data

    def _late(self, what: str) -> BackendError:
        return BackendError(f"the device's {what} did not return within {self.data_limit:.3g} s", errno.ETIMEDOUT)

    def _broken(self, error: OSError | None) -> DeviceError:
        """The error for a descriptor that failed: what the process says, or how it ended, if it can be known."""
        try:
            self.ask(object, "prepare", self.data_limit)
        except DeviceError as reason:
            return reason
        return BackendError("the device closed its data descriptor" + (f": {error.strerror}" if error else ""))

    def open_engine(self) -> DescriptorEngine:
        """Make a descriptor for one more engine."""
        self.ask(object, "engine", self._limit)
        return DescriptorEngine(self.take_data(), self.data_limit)

    def explain(self, error: BackendError) -> DeviceError:
        """What to say of an engine's failure: if the process has ended, that it has."""
        if error.errno == errno.EPIPE:
            try:
                self.ask(object, "prepare", self.data_limit)
            except DeviceError as reason:
                return reason
        return error

    def reset(self) -> None:
        """Reset the device; what it has begun by itself, a stop say, it finishes first."""
        self.ask(object, "reset", self._limit)

    def poll_fd(self) -> int | None:
        data = self._data
        return data.fileno() if self._pollable and data is not None else None
