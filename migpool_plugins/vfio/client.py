"""The device process as the migrating process sees it: started, given devices, asked, ended.

Guarantees:

* The process ends when its last device is closed, and by itself when the process that started it is gone, however that
  went; ending it has a time limit, after which it is killed.
* A request never outlasts its limit, and a process that has ended is an error at once.
* ``abort`` ends the wait of a request (an event descriptor is polled with the connection) and of a read or write of the
  data descriptor (which is shut down), and makes later ones fail until ``renew``. It may run beside anything, ``close``
  included; see :class:`~migpool_plugins.vfio.backend.Interruption`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import marshal
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, TypeVar

from migpool.device import DeviceError, Side, VerificationError
from migpool_plugins.memory import Memory
from migpool_plugins.vfio.backend import BackendError, Interruption
from migpool_plugins.vfio.options import DeviceSettings
from migpool_plugins.vfio.profiles import MAX_MESSAGE
from migpool_plugins.vfio.transfer import limit_waits

END_LIMIT: Final = 5.0
_ROOT: Final = Path(__file__).resolve().parents[2]
_BOOT: Final = "import sys; sys.path.append(sys.argv[1]); from migpool_plugins.vfio.server import main; main()"


_T = TypeVar("_T")


class DeviceProcess:
    """One device process, for a number of devices, each of which calls :meth:`release` once.

    Raises:
        DeviceError: the process cannot be started.
    """

    def __init__(self, devices: int) -> None:
        self._lock = threading.Lock()
        self._devices = devices
        self._root, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                # -I and -S: no user's or site's modules, and 10 ms less to wait for. A process group of its own: an
                # interrupt from the keyboard is the migrating process's to handle, which then ends this one in order.
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BOOT, str(_ROOT)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    process_group=0,
                )
        except (OSError, ValueError) as error:
            self._root.close()
            raise DeviceError(f"the device process cannot be started: {error}") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def attach(self, settings: DeviceSettings, side: Side, seed: int) -> socket.socket:
        """Have the process make a device, without waiting for that; returns the device's own connection.

        Raises:
            DeviceError: the process is gone, or this process is out of descriptors.
        """
        fault = None if settings.fault is None else dataclasses.astuple(settings.fault)
        message = marshal.dumps((settings.idstr, side == "source", seed, dataclasses.astuple(settings.profile), fault))
        ours: socket.socket | None = None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                socket.send_fds(self._root, [message], [theirs.fileno()])
        except OSError as error:
            if ours is not None:
                ours.close()
            ended = self.ending() if isinstance(error, ConnectionError) else f"no connection to it: {error}"
            raise DeviceError(f"the device {settings.idstr} cannot be made: {ended}") from None
        return ours

    def ending(self) -> str:
        """Say how the process ended, for an error, after one of its connections was found closed."""
        try:
            status = self._process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            return "the device process closed the device's connection"
        how = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
        return f"the device process ended ({how})"

    def release(self) -> None:
        with self._lock:
            self._devices -= 1
            last = self._devices == 0
        if last:
            self.end()

    def end(self) -> None:
        """End the process whatever it does, and wait until it is gone. Harmless when it is already."""
        self._root.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_LIMIT)
            return
        self._process.kill()
        self._process.wait()


class DeviceClient:
    """One device's connections: its control connection, and its data descriptor while there is one.

    Arguments:
        process: the device process.
        connection: the device's control connection; the client owns it.
        data_limit: seconds that one read or write of the data descriptor may take.

    Attributes:
        memory: the one that the device's state is in, in the device process, too; ``None`` if it has not given it.
    """

    def __init__(self, process: DeviceProcess, connection: socket.socket, data_limit: float) -> None:
        self._process = process
        self._connection = connection
        self.data_limit = data_limit
        self._data: socket.socket | None = None
        self.memory: Memory | None = None
        self._interruption = Interruption()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._interruption.fd, select.POLLIN)
        self._ids = itertools.count(1)

    def ask(self, kind: type[_T], op: str, limit: float, *arguments: float | str | bytes) -> _T:
        """Ask the device process and return its answer.

        Arguments:
            kind: what the answer is.
            op: the request: a method of :class:`~migpool_plugins.vfio.state.DeviceState`, or ``connect``.
            limit: seconds to wait for the answer.
            arguments: of the method.

        Raises:
            BackendError: refused, aborted, late, or the process has ended.
            VerificationError: refused, since the state or config is not the one that was sent.
        """
        self._interruption.check()
        number = next(self._ids)
        try:
            self._connection.sendall(marshal.dumps((number, op, arguments)))
        except ConnectionError:
            raise BackendError(self._process.ending()) from None
        deadline = time.monotonic() + limit
        while True:
            ready = self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            self._interruption.check()
            if not ready:
                name = op.replace("_", "-")
                raise BackendError(f"the device did not answer {name!r} within {limit:.3g} s", errno.ETIMEDOUT)
            answered, refused, answer = self._receive()
            # An aborted request's answer may still come; the numbers tell it from the one that is waited for.
            if answered == number:
                break
            self._drop_data()
        if refused:
            raise refusal(refused, answer)
        assert isinstance(answer, kind)
        return answer

    def _receive(self) -> tuple[int, str, Any]:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE, 2)
        except ConnectionError:
            message, descriptors = b"", []
        if descriptors:
            self._adopt(socket.socket(fileno=descriptors[0]))
        for descriptor in descriptors[1:]:
            if self.memory is None:
                self.memory = Memory(os.fstat(descriptor).st_size, resident=True, descriptor=descriptor)
            else:
                os.close(descriptor)  # each connection brings the same one
        if not message:
            raise BackendError(self._process.ending())
        number, refused, answer = marshal.loads(message)
        return number, refused, answer

    def _adopt(self, data: socket.socket) -> None:
        limit_waits(data, self.data_limit)
        with self._interruption.lock:
            previous, self._data = self._data, data
            if previous is not None:
                previous.close()
            if self._interruption.raised:
                data.shutdown(socket.SHUT_RDWR)

    def take_data(self) -> socket.socket:
        """Give the descriptor that the last request brought to the caller, who closes it."""
        with self._interruption.lock:
            data, self._data = self._data, None
        if data is None:
            raise BackendError("the device process sent no descriptor")
        return data

    def _drop_data(self) -> None:
        with self._interruption.lock:
            if self._data is not None:
                self._data.close()
                self._data = None

    def abort(self) -> None:
        """End every wait at once; see the module's guarantees."""
        self._interruption.interrupt(self._shut_data)

    def _shut_data(self) -> None:
        if self._data is not None:
            self._data.shutdown(socket.SHUT_RDWR)

    def renew(self, patience: float | None = None) -> None:  # noqa: ARG002 - nothing is connected anew here
        """Take back an abort and drop the data descriptor: the device is used again."""
        self._drop_data()
        self._interruption.take_back()

    def close(self) -> None:
        """Close the connections and release the process."""
        if not self._interruption.close(self._connection.close):
            return
        self._drop_data()
        if self.memory is not None:
            self.memory.close()
        self._process.release()


def refusal(kind: str, text: str) -> DeviceError:
    """Return the error for what the device process refused."""
    return VerificationError(text) if kind == "verification" else BackendError(text)
