"""What the tests of the emulated VFIO devices share: types of their fixtures, and calls that are expected to block."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from migpool.device import OptionValue, Side
from migpool_plugins.vfio.emulated import EmulatedVfioDevice

LIMIT: Final = 20.0
"""Seconds after which a test gives up waiting."""
CHUNK: Final = 64 << 10
"""The chunk of profile ``tiny``, whose state is four of them."""


class OpenSide(Protocol):
    """Opens devices of one side, by default one of profile ``tiny``; options in a table, or as keywords."""

    def __call__(
        self,
        side: Side,
        table: Mapping[str, OptionValue] | None = None,
        /,
        *,
        count: int = 1,
        seed: int = 1,
        **options: OptionValue,
    ) -> list[EmulatedVfioDevice]: ...


Saver: TypeAlias = Callable[[EmulatedVfioDevice], list[bytes]]
"""Stops a device and reads its state; returns one item for each read."""


class Blocked:
    """A call on a thread of its own, that is expected to block; the constructor returns when the thread sleeps.

    Arguments:
        call: the call.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self._error: Exception | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._wait_until_asleep()

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
            self._error = error

    def _wait_until_asleep(self) -> None:
        """See the thread asleep twenty times in a row: longer than it could wait for the interpreter lock."""
        status = Path(f"/proc/self/task/{self._thread.native_id}/status")
        pause = threading.Event()
        seen = 0
        while seen < 20 and self._thread.is_alive():
            pause.wait(0.001)
            try:
                seen = seen + 1 if "State:\tS" in status.read_text() else 0
            except OSError:
                return

    def ended(self) -> Exception | None:
        """Wait until the call has ended; returns what it raised."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "the call still blocks"
        return self._error


def process_ended(pidfd: int) -> bool:
    """Wait until the process of a pid descriptor has ended, and close the descriptor; false if it did not in time."""
    try:
        return bool(select.select([pidfd], [], [], LIMIT)[0])
    finally:
        os.close(pidfd)
