"""The lines of a QEMU trace log, one after the other, in constant memory.

QEMU's log back end writes a line an event. With ``-msg timestamp=on`` there are two forms::

    15118@1795986117.580843:vmstate_downtime_checkpoint src-downtime-start      thread id, seconds: up to QEMU 10.x
    2026-11-30T05:42:49.731228Z vmstate_downtime_checkpoint src-downtime-start  UTC, no thread: QEMU 11

A log may have other lines in between (warnings, what libvirt writes): they are passed over and counted.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zlib
from calendar import timegm
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from migpool.errors import UsageError

LONGEST: Final = 1 << 14
"""Bytes of a line: a longer one is taken as several, none of which is an event that is known."""

_LINE: Final = re.compile(
    rb"(?:(\d{1,10})@(\d{1,11})\.(\d{6}):"
    rb"|(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z )"
    rb"([a-z][a-z0-9_]*)(?: (.*))?\s*$"
)
_UNTIMED: Final = re.compile(rb"vmstate_downtime_(?:checkpoint|save|load) ")
_PACKED: Final[dict[bytes, Callable[[Path], io.BufferedIOBase]]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"\xfd7zXZ": lzma.LZMAFile,
}


class Line(NamedTuple):
    """One event.

    Arguments:
        time: nanoseconds of the host's clock, since 1970.
        thread: the thread's id; empty where the log does not say it.
        event: the tracepoint's name.
        text: what it says of the event.
    """

    time: int
    thread: str
    event: str
    text: str


@dataclass(slots=True)
class Counts:
    """What has been read of a log.

    Attributes:
        lines: all of them.
        events: those that are an event of a trace.
        untimed: those that would be one, had they a time.
        others: how often each event came that nothing here needs; of very many kinds only the first.
        strange: how many lines were of an event that is needed, and not of a form that is known.
    """

    lines: int = 0
    events: int = 0
    untimed: int = 0
    strange: int = 0
    others: Counter[str] = field(default_factory=Counter)


MOST_KINDS: Final = 1000


def has_time(line: bytes) -> bool:
    """Whether a line is an event with the time at which it was."""
    return _LINE.match(line) is not None


def read_lines(path: Path, wanted: frozenset[str], counts: Counts) -> Iterator[Line]:
    """The events of a log that are wanted, in its order. A file packed by gzip or xz is unpacked.

    Arguments:
        counts: is counted up while it is read.

    Raises:
        UsageError: it cannot be read, or is packed and damaged.
    """
    names = {name.encode(): name for name in wanted}
    match, clock = _LINE.match, _Clock()
    try:
        with _open(path) as file:
            while raw := file.readline(LONGEST):
                counts.lines += 1
                found = match(raw)
                if found is None:
                    if _UNTIMED.match(raw):
                        counts.untimed += 1
                    continue
                counts.events += 1
                event = names.get(found[11])
                if event is None:
                    if found[11].decode() in counts.others or len(counts.others) < MOST_KINDS:
                        counts.others[found[11].decode()] += 1
                    continue
                try:
                    thread, time = clock.read(found)
                except ValueError:
                    counts.strange += 1  # no calendar has that day
                    continue
                text = (found[12] or b"").decode("utf-8", "replace").strip()
                yield Line(time, thread, event, text if text.isprintable() else _printable(text))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise UsageError(f"{path} is a packed file that is damaged ({error}): unpack it, or copy it again") from None


def _open(path: Path) -> io.BufferedIOBase:
    if path.is_dir():
        raise UsageError(f"{path} is a directory: name a trace log")
    with path.open("rb") as file:
        head = file.read(5)
    opener = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), None)
    return path.open("rb") if opener is None else opener(path)


def _printable(text: str) -> str:
    """The text as it may stand on a terminal."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


class _Clock:
    """Reads times; a date is computed once a minute."""

    def __init__(self) -> None:
        self._minute: tuple[bytes, ...] = ()
        self._seconds = 0

    def read(self, found: re.Match[bytes]) -> tuple[str, int]:
        """The thread, and the time in nanoseconds.

        Raises:
            ValueError: no calendar has the date.
        """
        if found[1] is not None:
            return found[1].decode(), int(found[2]) * 1_000_000_000 + int(found[3]) * 1000
        minute = found.group(4, 5, 6, 7, 8)
        if minute != self._minute:
            year, month, day, hour, minutes = map(int, minute)
            self._seconds = timegm((year, month, day, hour, minutes, 0))
            self._minute = minute
        return "", (self._seconds + int(found[9])) * 1_000_000_000 + int(found[10]) * 1000
