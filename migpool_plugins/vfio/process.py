"""The device process as the migrating process sees it: started, given devices, ended.

Guarantees: the process ends when its last device is closed, and by itself when the process that started it is gone,
however that went; ending it has a time limit, after which it is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import marshal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from migpool.device import DeviceError, Side
from migpool_plugins.vfio.options import DeviceSettings

END_LIMIT: Final = 5.0
_ROOT: Final = Path(__file__).resolve().parents[2]
_BOOT: Final = "import sys; sys.path.append(sys.argv[1]); from migpool_plugins.vfio.server import main; main()"


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
