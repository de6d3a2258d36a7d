"""What a recorded destination said on the return path, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.record.index import Connection
from migpool.streams.record.times import Times
from migpool.wire.returnpath import Message, ReturnPathReader

_READ: Final = 1 << 16


def answers(directory: Path, main: Connection, *, extension: bool) -> Iterator[tuple[int, Message]]:
    """Every message with its time, CLOCK_MONOTONIC in nanoseconds. It ends before what is no message.

    Arguments:
        main: the main channel's connection.
        extension: whether the source offered this project's own messages.
    """
    flow = main.destination
    if not flow.recorded:
        return
    reader = ReturnPathReader(extension)
    stamps = Times(directory / flow.times).pairs()
    now, covered = main.begin, 0
    with (directory / flow.file).open("rb", buffering=0) as file:
        while data := file.read(_READ):
            reader.feed(data)
            try:
                for message in reader.events():
                    # A message has come when its last byte has.
                    while covered < reader.offset and (stamp := next(stamps, None)) is not None:
                        now, covered = stamp
                    yield now, message
            except ProtocolError:
                return
