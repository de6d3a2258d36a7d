"""The files of a recording: ``index.json``, which says what the others are, and when which byte passed.

A recording is a directory::

    index.json               this index
    000-source.bytes         what the source sent on the first connection
    000-source.times         when it passed: pairs of u64 (little-endian), one pair a read: CLOCK_MONOTONIC in ns,
                             and how many bytes of the file had come by then; both rise
    000-destination.bytes    what the destination sent on that connection; missing if it said nothing
    000-destination.times
    001-source.bytes         the second connection, and so on, in the order in which the source opened them

The index is there from the beginning and says ``"complete": false`` until everything has ended in good order. So what a
recorder leaves behind that was killed is a valid recording as far as it goes; half a pair at the end of a file of time
stamps is passed over.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from struct import Struct
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from migpool.errors import UsageError
from migpool.units import MIB
from migpool.untrusted.files import read_bounded
from migpool.untrusted.text import printable
from migpool.wire.stream import POSTCOPY_RESUMED

INDEX: Final = "index.json"
VERSION: Final = 1
PAIR: Final = Struct("<QQ")
"""One time stamp."""
_PAIRS_AT_ONCE: Final = 4096

_INDEX_LIMIT: Final = 4 * MIB
_NAME: Final = re.compile(r"[0-9]{3,9}-(source|destination)\.(bytes|times)")
MOST_CONNECTIONS: Final = 4096
"""Connections of a recording."""

Side = Literal["source", "destination"]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""Bytes, nanoseconds, or a number in a row."""
Shown = Annotated[str, AfterValidator(printable)]
"""Text that is shown."""


class Role(StrEnum):
    """What a connection was, by its first bytes."""

    MAIN = "main"
    MULTIFD = "multifd"
    UNKNOWN = "unknown"


class Ended(StrEnum):
    """How one direction of a connection came to its end."""

    OPEN = "open"
    """It had not ended when the index was written."""
    CLOSED = "closed"
    """Who sent on it ended it in good order."""
    BROKEN = "broken"
    """Who sent on it went away without an end."""
    REFUSED = "refused"
    """Who should read it had gone."""
    CUT = "cut"
    """The recorder ended it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time by two clocks.

    Attributes:
        monotonic: CLOCK_MONOTONIC of the recorder's host in nanoseconds, as in all time stamps.
        wall: UTC, in ISO 8601.
    """

    monotonic: Count
    wall: Shown


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of a connection.

    Attributes:
        bytes: how many bytes passed.
        recorded: how many of them are in the file; fewer only if the disk did not take them.
        ended: how it ended.
        file: the file's name in the directory; empty if there is none.
        times: the name of the file with its time stamps; empty if there is none.
    """

    bytes: Count = 0
    recorded: Count = 0
    ended: Ended = Ended.OPEN
    file: str = ""
    times: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection from source to destination.

    Attributes:
        number: in the order in which the source opened them, from 0.
        role: what it was.
        channel: the multifd channel's number; ``None`` for others.
        uuid: the machine's uuid in the multifd channel's first packet, as 32 hexadecimal digits; empty for others.
        begin: when it was opened, CLOCK_MONOTONIC in nanoseconds.
        end: when both directions had ended; ``None`` if they had not.
        source: what the source sent.
        destination: what the destination sent.
    """

    number: Count
    role: Role
    channel: Annotated[int, Field(ge=0, le=255)] | None
    uuid: Shown
    begin: Count
    end: Count | None
    source: Flow
    destination: Flow

    @property
    def name(self) -> str:
        """How it is called in what a user reads."""
        if self.role is Role.MULTIFD:
            return f"channel {self.channel}"
        return "main channel" if self.role is Role.MAIN else f"connection {self.number}"


@dataclass(frozen=True, slots=True)
class Index:
    """All that a recorder knows of what it recorded.

    Attributes:
        listen: where the source connected to.
        to: where the destination was.
        begin: when the recorder began to listen.
        end: when the last connection had ended; ``None`` if the recorder did not live to see it.
        complete: every byte that the source sent passed and is recorded, and the source itself ended every connection.
        reason: why it is not complete, in one line; empty if it is.
        connections: in the order in which they were opened.
    """

    listen: Shown
    to: Shown
    begin: Moment
    end: Moment | None
    complete: bool
    reason: Shown
    connections: Annotated[tuple[Connection, ...], Field(max_length=MOST_CONNECTIONS)]
    format: Literal["migpool-recording"] = "migpool-recording"
    version: Literal[1] = 1

    @property
    def main(self) -> Connection | None:
        """The main channel, if the source opened it."""
        return next((one for one in self.connections if one.role is Role.MAIN), None)

    @property
    def multifd(self) -> tuple[Connection, ...]:
        """The multifd channels, by their numbers."""
        found = (one for one in self.connections if one.role is Role.MULTIFD)
        return tuple(sorted(found, key=lambda one: one.channel or 0))


def flow_name(number: int, side: Side, kind: Literal["bytes", "times"]) -> str:
    """The name of one of a connection's files."""
    return f"{number:03}-{side}.{kind}"


def store(directory: Path, index: Index) -> None:
    """Write the index, so that at every moment either the old one or the new one is there, whole.

    Raises:
        OSError: it cannot be written.
    """
    text = TypeAdapter(Index).dump_json(index, indent=1)
    beside = directory / f"{INDEX}.new"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 -- it is open already
            file.write(text + b"\n")
        beside.replace(directory / INDEX)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def load(directory: Path) -> Index:
    """Read the index of a recording.

    Raises:
        UsageError: the directory is no recording, or one of a later version, or a file of it is missing, short, or no
            file in this directory.
    """
    path = directory / INDEX
    try:
        text = read_bounded(path, _INDEX_LIMIT, links=False)
    except FileNotFoundError:
        raise UsageError(
            f"{directory} is no recording, as it has no {INDEX}: name a stream's file, or a recording's directory"
        ) from None
    except OSError as error:
        raise UsageError(f"{directory} is no recording: {path} cannot be read: {error.strerror or error}") from None
    try:
        index = TypeAdapter(Index).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{path} is no index of version {VERSION}: {where}: {first['msg']}") from None
    before = -1
    for connection in index.connections:
        if connection.number <= before or (connection.role is Role.MULTIFD) != (connection.channel is not None):
            raise UsageError(f"{path} is no index of version {VERSION}: {connection.name} is none of a recording's")
        before = connection.number
        for flow in (connection.source, connection.destination):
            _check_files(directory, flow)
    return index


def beginning(directory: Path, one: Connection, size: int = 512) -> bytes:
    """The first bytes that the source sent on a connection; none if nothing of it was recorded."""
    if not one.source.recorded:
        return b""
    with (directory / one.source.file).open("rb") as file:
        return file.read(size)


def has_resumed(directory: Path, index: Index) -> bool:
    """Whether a postcopy went on, after a break, on one of a recording's connections."""
    return any(beginning(directory, one).startswith(POSTCOPY_RESUMED) for one in index.connections)


def main_channel(directory: Path) -> Path:
    """The file of a recording's main channel.

    Raises:
        UsageError: it is no recording, or has no main channel.
    """
    main = load(directory).main
    if main is None or not main.source.recorded:
        raise UsageError(f"{directory}: the recording has no main channel, which describes the devices")
    return directory / main.source.file


def _check_files(directory: Path, flow: Flow) -> None:
    """Look at both files before one of them is opened: a named pipe would wait, a link lead anywhere."""
    sizes = []
    for name in (flow.file, flow.times):
        if not name and not flow.recorded:
            continue
        if not _NAME.fullmatch(name):
            raise UsageError(f"{directory / INDEX}: {name!r} is no name of a file in the recording's own directory")
        path = directory / name
        try:
            found = path.lstat()
        except OSError as error:
            raise UsageError(f"{path} of the recording is missing: {error.strerror or error}") from None
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path} of the recording is no file: a link, a named pipe or a device is not followed")
        sizes.append(found.st_size)
    if flow.recorded > flow.bytes or (sizes and sizes[0] < flow.recorded):
        raise UsageError(
            f"{directory / flow.file} has {sizes[0]} bytes, and {flow.recorded} were recorded: copy the recording again"
        )


class Times:
    """Reads the time stamps of one direction of a connection, in constant memory.

    Arguments:
        path: the file; ``None`` for a direction on which nothing passed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Every pair (nanoseconds, offset).

        Raises:
            UsageError: they do not rise.
        """
        if self._path is None:
            return
        now = covered = 0
        with self._path.open("rb", buffering=0) as file:
            rest = b""
            while data := file.read(PAIR.size * _PAIRS_AT_ONCE):
                data = rest + data
                whole = len(data) // PAIR.size * PAIR.size
                rest = data[whole:]
                for when, offset in PAIR.iter_unpack(memoryview(data)[:whole]):
                    if when < now or offset <= covered:
                        raise UsageError(f"{self._path}: the times of the recording do not rise: copy it again")
                    now, covered = when, offset
                    yield now, covered

    def when(self, offset: int) -> int | None:
        """When the byte at ``offset`` came, in nanoseconds; ``None`` if no stamp covers it."""
        if self._path is None:
            return None
        with self._path.open("rb", buffering=0) as file:
            low, high = 0, os.fstat(file.fileno()).st_size // PAIR.size
            count = high
            while low < high:
                middle = (low + high) // 2
                if self._at(file.fileno(), middle)[1] > offset:
                    high = middle
                else:
                    low = middle + 1
            return self._at(file.fileno(), low)[0] if low < count else None

    def last(self) -> int | None:
        """When the last byte came, in nanoseconds; ``None`` if none did."""
        if self._path is None:
            return None
        with self._path.open("rb", buffering=0) as file:
            count = os.fstat(file.fileno()).st_size // PAIR.size
            return self._at(file.fileno(), count - 1)[0] if count else None

    @staticmethod
    def _at(descriptor: int, number: int) -> tuple[int, int]:
        nanoseconds, offset = PAIR.unpack(os.pread(descriptor, PAIR.size, number * PAIR.size))
        return nanoseconds, offset
