"""What every part of a description can do: read itself from bytes, write itself, and show a value.

Declared descriptions and those that come with a stream compile to the same parts; there is no other codec. A part
knows its wire form only; where a value lives in an object is the concern of :mod:`~migpool.vmsd.access`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeAlias

from migpool.vmsd.payload import Reader

Entry: TypeAlias = dict[str, object]
"""One JSON object of a stream's description."""

Shown: TypeAlias = "str | bool | list[Shown] | dict[str, Shown]"
"""A value as a decoder prints it: whole numbers as ``0x0000002a``, raw bytes as ``2a 00``."""


class Notes:
    """Where a part that writes itself also leaves its entry for the JSON description.

    Arguments:
        entries: the list that the entries go to.
        label: the field's name in the JSON.
        compress: all elements of an array are described by their first one.
        place: what stands behind the name: ``array_len`` or ``index``, or nothing.
    """

    __slots__ = ("compress", "entries", "label", "place")

    def __init__(self, entries: list[Entry], label: str, compress: bool, place: Mapping[str, object]) -> None:
        self.entries = entries
        self.label = label
        self.compress = compress
        self.place = place

    def add(self, kind: str, size: int, detail: Mapping[str, object] | None = None) -> None:
        """Add one entry: the type's name, what stands inside of it, and how many bytes were written."""
        entry: Entry = {"name": self.label, **self.place, "type": kind}
        if detail is not None:
            entry.update(detail)
        entry["size"] = size
        self.entries.append(entry)

    def element(self, index: int, length: int) -> Notes | None:
        """The notes for one element of an array of ``length``; ``None`` if an earlier element speaks for it.

        Real streams give every element that cannot be compressed its index, except the last one.
        """
        if length - index < 2:
            return self if length < 2 or not self.compress else None
        if not self.compress:
            return Notes(self.entries, self.label, False, {"index": index})
        return Notes(self.entries, self.label, True, {"array_len": length}) if index == 0 else None


class Codec(ABC):
    """One part of a description.

    Attributes:
        kind: the type's name in the JSON description.
        size: how many bytes it always takes, or ``None``.
        least: the fewest bytes it can take.
        static: its length follows from the bytes alone, without any object.
        compressible: an array of it may be described by its first element.
        resumes: reading wants the value that the object holds already.
        silent: it has nothing to show.
    """

    kind: str
    size: int | None
    least: int
    static: bool = True
    compressible: bool = True
    resumes: bool = False
    silent: bool = False

    @abstractmethod
    def read(self, reader: Reader, holder: object, current: object) -> object:
        """Read one value.

        Arguments:
            reader: the bytes; on return it stands behind the value.
            holder: the object that the value will belong to; counts and conditions look at it.
            current: what it holds in this place now, or ``None``.
        """

    @abstractmethod
    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        """Append the bytes of ``value`` to ``out``, and its entry to ``notes``."""

    @abstractmethod
    def show(self, value: object, holder: object) -> Shown:
        """Say ``value`` as a decoder would print it."""
