"""The two ways to an emulated device in a device process of one's own, as backends.

Both have the control connection (:class:`DeviceClient`) beside them. Through it the device says in words why it refused
something, which vfio-user cannot, and how its process ended.
"""

from __future__ import annotations

import errno

from migpool.device import DeviceError, VerificationError
from migpool_plugins.vfio.backend import BackendError, PrecopyInfo
from migpool_plugins.vfio.client import DeviceClient
from migpool_plugins.vfio.migration import READABLE, WRITABLE, MigrationState
from migpool_plugins.vfio.profiles import MAX_CHUNK, DeviceProfile
from migpool_plugins.vfio.vfiouser.backend import VfioUserBackend
from migpool_plugins.vfio.vfiouser.connection import Connection

MAKING_LIMIT = 60.0
"""Seconds that making the state may take: 64 MiB take a tenth of a second, the largest allowed state some twenty."""


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

    def precopy_info(self) -> PrecopyInfo | None:
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
    """A device spoken to in vfio-user, on connections that the control connection brings; arguments as above."""

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
