"""``receive_file`` beside a test, in a thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

from migpool.errors import MigpoolError
from migpool.streams.file.tofile import Stored, receive_file
from migpool.transport.address import Address

LIMIT = 10.0


class Receiver(threading.Thread):
    """Stores one machine, beside the test."""

    def __init__(
        self, path: Path, address: Address, channels: int, idle: float = LIMIT, *, acknowledge: bool | None = None
    ) -> None:
        super().__init__(name="receiver")
        self._idle = idle
        self._arguments = (path, address, channels)
        self._listening = threading.Event()
        self._cancel = threading.Event()
        self._acknowledge = acknowledge
        self.noted: list[str] = []
        self.stored: Stored | None = None
        self.error: MigpoolError | None = None

    def __enter__(self) -> Self:
        self.start()
        assert self._listening.wait(LIMIT)
        return self

    def __exit__(self, *_: object) -> None:
        self.join(LIMIT)
        self._cancel.set()  # whatever has gone wrong: it must end
        self.join(LIMIT)

    def run(self) -> None:
        path, address, channels = self._arguments
        try:
            self.stored = receive_file(
                path,
                address,
                channels,
                limit=self._idle,
                cancelled=self._cancel.is_set,
                listening=lambda _: self._listening.set(),
                acknowledge=self._acknowledge,
                noted=self.noted.append,
            )
        except MigpoolError as error:
            self.error = error
