"""An emulated device that is spoken to in vfio-user: as a server's is, but that its data do not cross in messages.

The device process gives a descriptor of the memory that the state is in. A read is answered with where the next bytes
are, and a write says where they have been put: so each is one copy on the thread that asks, as from or to a driver.
Through the socket each is two, with buffers of the kernel's in between; what the device process takes of the processors
for that is missing to the migration that is measured: the decision "The state of emulated devices is in memory that
both processes share".
"""

from __future__ import annotations

import errno
import time
from typing import Final

from migpool.device import DeviceError, VerificationError
from migpool_plugins.memory import Memory
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.client import DeviceClient
from migpool_plugins.vfio.migration import WRITABLE, MigrationState
from migpool_plugins.vfio.profiles import DeviceProfile
from migpool_plugins.vfio.vfiouser.backend import VfioUserBackend
from migpool_plugins.vfio.vfiouser.connection import Connection
from migpool_plugins.vfio.vfiouser.message import ASKED, PLACE, PLACED, UserCommand

MAKING_LIMIT: Final = 60.0
"""Seconds that making the state may take: 64 MiB take a tenth of a second, the largest allowed state some twenty."""
_READ: Final = UserCommand.MIG_PLACED_READ
_WRITE: Final = UserCommand.MIG_PLACED_WRITE


class ServedBackend(VfioUserBackend):
    """A device spoken to in vfio-user, on connections that the control connection brings.

    Arguments:
        client: the control connection.
        profile: the device's.
        limit: seconds that a request may take.
    """

    def __init__(self, client: DeviceClient, profile: DeviceProfile, limit: float) -> None:
        self._client = client
        self._profile = profile
        self._limit = limit
        self._connect_limit = MAKING_LIMIT
        self._put = 0
        self._returned = 0.0
        super().__init__(
            lambda _interruption, _again: self._connected(),
            "emulated device",
            flags=profile.flags,
            reason=self._why,
            engines=profile.engines,
        )
        self.note = "emulated VFIO"

    def _connected(self) -> Connection:
        self._client.ask(object, "connect", self._connect_limit)
        self._connect_limit = self._limit
        return Connection(self._client.take_data(), "emulated device", self._limit, self._interruption)

    def _why(self) -> DeviceError | None:
        try:
            self._client.ask(object, "why", self._limit)
        except VerificationError as reason:
            return reason
        except BackendError as reason:
            # A device process that answers nothing says nothing of the reason either.
            return None if reason.errno == errno.ETIMEDOUT else reason
        return None

    def set_state(self, target: MigrationState) -> None:
        """Bring the device to ``target``: its process is our own, so what it says it has done it has."""
        if target in WRITABLE:
            self._put = 0
        self._go(target)

    def read(self, buffer: memoryview) -> int:
        """Read the next part of the state straight into ``buffer``, which its place in memory is asked for."""
        memory = self._client.memory or self._given()
        if memory is None:
            return super().read(buffer)
        size = min(len(buffer), self._profile.chunk, self._profile.size)
        came = self._ask(_READ, ASKED.pack(size, time.monotonic()), "read", "the read was refused")
        filled = 0
        for at, count in PLACE.iter_unpack(came):
            memory.get(at, buffer[filled : filled + count])
            filled += count
        return filled

    def write(self, data: memoryview) -> None:
        """Put a part of the state where it belongs, cut as the device takes it; returns when it has taken all of it."""
        size, memory = self._profile.size, self._client.memory or self._given()
        if memory is None or (not self._profile.precopy and self._put + len(data) > size):
            super().write(data)  # what is too long the device refuses, and none of it is put anywhere
            return
        while data:
            called, at = time.monotonic(), self._put % size
            part = data[: min(self.write_size, size - at)]
            memory.put(at, part)
            place = PLACED.pack(at, len(part), called, self._returned)
            self._ask(_WRITE, place, "write", "the write was refused")
            self._returned = time.monotonic()
            self._put += len(part)
            data = data[len(part) :]

    def _given(self) -> Memory | None:
        self._session()
        return self._client.memory

    def abort(self) -> None:
        """End any wait at once. The connection is given up: another one takes nothing but a question."""
        self._interruption.interrupt(self._abort_connection)
        self._client.abort()

    def _abort_connection(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    def renew(self, patience: float | None = None) -> None:
        self._client.renew()
        super().renew(patience)

    def close(self) -> None:
        super().close()
        self._client.close()
