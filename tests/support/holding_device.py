"""A device for the tests that stands still in one of its methods, and says so, until it is aborted or let go.

Options: ``hold`` is the method, ``side`` where; ``fifo`` is a named pipe: the device writes ``side pid`` to it when it
holds; ``seconds`` is how long at most.
"""

from __future__ import annotations

import hashlib
import os
import threading

from migpool.device import Device, DeviceContext, DeviceError, Pending

SIZE = 1 << 18


def devices(context: DeviceContext) -> list[Device]:
    """Hold still in one method."""
    return [HoldingDevice(context)]


class HoldingDevice(Device):
    """Has some state, to pre-copy and to save after the stop."""

    idstr = "holding"
    iterable = True
    note = "test"

    def __init__(self, context: DeviceContext) -> None:
        self._side = context.side
        self._hold = str(context.options["hold"])
        self._where = str(context.options["side"])
        self._fifo = str(context.options["fifo"])
        self._seconds = float(str(context.options.get("seconds", 60)))
        self._aborted = threading.Event()
        self._left = {"iterate": SIZE, "save_state": SIZE}
        self._digest = hashlib.sha256()

    def _holding(self, method: str) -> None:
        if method != self._hold or self._side != self._where:
            return
        with open(self._fifo, "w", encoding="ascii") as pipe:  # noqa: PTH123 -- a pipe, not a file
            pipe.write(f"{self._side} {os.getpid()}\n")
        if self._aborted.wait(self._seconds):
            raise DeviceError(f"aborted in {method}")

    def _fill(self, method: str, buffer: memoryview) -> int:
        self._holding(method)
        length = min(len(buffer), self._left[method])
        buffer[:length] = b"\x5a" * length
        self._left[method] -= length
        self._digest.update(buffer[:length])
        return length

    def save_setup(self) -> bytes:
        self._holding("save_setup")
        return b""

    def pending(self) -> Pending:
        return Pending(self._left["iterate"], self._left["save_state"])

    def iterate(self, buffer: memoryview) -> int:
        return self._fill("iterate", buffer)

    def stop(self) -> None:
        self._holding("stop")

    def save_state(self, buffer: memoryview) -> int:
        return self._fill("save_state", buffer)

    def save_config(self) -> bytes:
        self._holding("save_config")
        return b"config"

    def load_setup(self, data: bytes) -> None:
        assert data == b""
        self._holding("load_setup")

    def load_state(self, data: memoryview) -> None:
        self._holding("load_state")
        self._digest.update(data)

    def load_config(self, data: bytes) -> None:
        assert data == b"config"
        self._holding("load_config")

    def start(self) -> None:
        self._holding("start")

    def verify(self) -> None:
        self._holding("verify")

    def fingerprint(self) -> bytes:
        return self._digest.digest()

    def abort(self) -> None:
        self._aborted.set()
