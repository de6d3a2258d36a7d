"""Streams and recordings for programs: open one, go through its items, decode a device, compare two.

::

    from migpool import streams

    with streams.open("vm.mig") as stream:          # a file in any wrapping, a pipe, "-", or a recording's directory
        for item in stream:                         # the configuration, pages, sections, commands, in their order
            print(type(item).__name__)
        for device in stream.devices("*ahci*"):     # fields by name
            print(device.section.idstr, device.fields)
    for change in streams.diff("old.mig", "new.mig"):
        print(change.path, change.reason)

What the commands ``inspect`` and ``vmsd diff`` print of a stream is made with this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from migpool.errors import UsageError
from migpool.streams.envelope.opening import Opened, open_descriptor, open_path
from migpool.streams.inspect.decoding import DecodedSection, decode, wanted_by
from migpool.streams.inspect.reading import Inspection, nothing_wanted
from migpool.streams.inspect.summary import KeptSection, SectionSummary, StreamSummary
from migpool.wire.stream import StreamEvent

if TYPE_CHECKING:
    from migpool.vmsd.diff import Change

STANDARD_INPUT = "-"


class Stream:
    """A stream as it is walked; of a recording, its main channel, and the devices of the other channels.

    Use it as a context manager, or close it. Wrong bytes raise nothing: the walk ends, and the summary says where and
    why.

    Arguments:
        source: a path, ``-`` for standard input, or the directory of a recording.
        keep: patterns of the devices that will be decoded, as ``--device`` takes them: IDSTR or IDSTR#INSTANCE, also
            with ``*``, ``?`` and ``[...]``. Their payloads are kept in memory.
        offset: where in a file the stream begins; by default behind zeros, if there are any.
        snapshot: which one of a qcow2 image.

    Attributes:
        name: how to call it.
        xml: the machine's definition, if a libvirt save image had it.

    Raises:
        UsageError: it cannot be read, is empty, or is wrapped in what cannot be undone.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        keep: Sequence[str] = ("*",),
        offset: int | None = None,
        snapshot: str | None = None,
    ) -> None:
        self.name = "standard input" if source == STANDARD_INPUT else os.fspath(source)
        self._keep = tuple(keep)
        self._stack = ExitStack()
        self._recording: Path | None = None
        wanted = wanted_by(self._keep) if keep else nothing_wanted
        try:
            opened = self._open(source, offset, snapshot)
            self._inspection = Inspection(opened, wanted)
        except BaseException:
            self._stack.close()
            raise
        self._summary: StreamSummary | None = None
        self.xml = opened.xml

    def _open(self, source: str | os.PathLike[str], offset: int | None, snapshot: str | None) -> Opened:
        if source == STANDARD_INPUT:
            return open_descriptor(sys.stdin.fileno(), self.name, offset=offset, snapshot=snapshot)
        path = Path(source)
        if path.is_dir():
            from migpool.streams.record.index import main_channel  # whose parser takes long to import

            self._recording, path = path, main_channel(path)
        return self._stack.enter_context(open_path(path, offset=offset, snapshot=snapshot))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its file."""
        self._stack.close()

    def __iter__(self) -> Iterator[StreamEvent]:
        """The items that have not been had yet, in the order of the stream.

        RAM comes in batches of pages of one block; they are views of what was read, and are let go behind it.
        """
        return iter(self._inspection)

    @property
    def offset(self) -> int:
        """How many bytes have been understood so far."""
        return self._inspection.offset

    @property
    def summary(self) -> StreamSummary:
        """All that is in the stream; what has not been walked yet is walked first.

        Raises:
            UsageError: it cannot be read to its end: a disk, not the bytes, is damaged.
        """
        if self._summary is None:
            try:
                self._summary = self._inspection.summary()
            except OSError as error:
                raise UsageError(f"{self.name} cannot be read: {error.strerror or error}") from None
        return self._summary

    @property
    def sections(self) -> Sequence[SectionSummary]:
        """Every section, with its size; all PART sections of a device are one."""
        return self.summary.sections

    def devices(self, *patterns: str) -> list[DecodedSection]:
        """The devices that were kept, decoded by the description in the stream.

        Arguments:
            patterns: which of them; all by default.

        Returns:
            in the order of the stream, then those that crossed over the multifd channels of a recording; none if there
            is no such device. Of an iterable device each section is one.
        """
        wanted = wanted_by(patterns or ("*",))
        beside: list[KeptSection] = []
        if self._recording is not None:
            from migpool.streams.record.over_multifd import kept

            beside = kept(self._recording, wanted_by(self._keep))
        return [one for one in decode(self.summary, beside) if wanted(one.section.idstr, one.section.instance_id)]


def open(  # noqa: A001 -- streams.open() is to a stream what open() is to a file
    source: str | os.PathLike[str],
    *,
    keep: Sequence[str] = ("*",),
    offset: int | None = None,
    snapshot: str | None = None,
) -> Stream:
    """Open a stream or a recording; the arguments are those of :class:`Stream`."""
    return Stream(source, keep=keep, offset=offset, snapshot=snapshot)


def diff(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Sequence[Change]:
    """What differs between two machines as their streams tell it, and what that does to a migration.

    Arguments:
        old, new: streams, recordings, or JSON of one form.

    Raises:
        UsageError: one cannot be read, or they are not of one form.
    """
    from migpool.streams.compare.sides import compare_sides, read_side  # which takes longer to import than all else

    return compare_sides(read_side(Path(old)), read_side(Path(new))).changes
