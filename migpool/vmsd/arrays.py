"""Runs of equal elements: of fixed length, counted by another field, behind pointers, or as a stream shows them."""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from migpool.vmsd.access import ATTRIBUTES
from migpool.vmsd.cells import NULL, Cell
from migpool.vmsd.codec import Codec, Notes, Shown
from migpool.vmsd.payload import Fault, Reader

Length: TypeAlias = "int | str | Callable[..., int]"
"""How many: a number, the attribute that holds it, or a function of the object."""


def length_of(length: Length, holder: object) -> int:
    """How many elements there are, for this object."""
    if isinstance(length, int):
        return length
    count = ATTRIBUTES.get(holder, length) if isinstance(length, str) else length(holder)
    if not isinstance(count, int) or count < 0:
        raise Fault(f"expected a count of elements, it is {count!r:.60}")
    return count


def _elements(value: object, length: int) -> Sequence[object]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Fault(f"expected {length} elements, the object has {value!r:.60}")
    if len(value) != length:
        raise Fault(f"expected {length} elements, the object has {len(value)}")
    return value


class Array(Codec):
    """Elements of one kind, one after the other.

    Arguments:
        element: what each of them is.
        length: how many there are.
        first: the index of the first one, if they are a piece of a longer array.
    """

    def __init__(self, element: Codec, length: Length, first: int = 0) -> None:
        fixed = length if isinstance(length, int) else None
        self.kind = element.kind
        self.size = None if fixed is None or element.size is None else fixed * element.size
        self.least = 0 if fixed is None else fixed * element.least
        self.static = fixed is not None and element.static
        self.compressible = element.compressible
        self.resumes = element.resumes
        self.element = element
        self.length = length
        self._first = first

    def read(self, reader: Reader, holder: object, current: object) -> object:
        element = self.element
        length = length_of(self.length, holder)
        reader.allow(length, element.least)
        if isinstance(element, Cell):
            return element.read_many(reader, length, self._first)
        given: Sequence[object] = (None,) * length
        if element.resumes and isinstance(current, Sequence) and len(current) == length:
            given = current
        values: list[object] = []
        try:
            values.extend(element.read(reader, holder, old) for old in given)
        except Fault as fault:
            raise fault.at(reader.pos).under(f"[{self._first + len(values)}]") from fault.__cause__
        return values

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        element = self.element
        length = length_of(self.length, holder)
        values = _elements(value, length)
        if isinstance(element, Cell):
            element.write_many(values, out, self._first)
            if notes is not None:
                for index in range(length):
                    if (place := notes.element(index, length)) is not None:
                        place.add(element.kind, element.size)
            return
        for index, item in enumerate(values):
            try:
                element.write(item, holder, out, notes and notes.element(index, length))
            except Fault as fault:
                raise fault.under(f"[{self._first + index}]") from fault.__cause__

    def show(self, value: object, holder: object) -> Shown:
        return [self.element.show(item, holder) for item in _elements(value, length_of(self.length, holder))]


class PointerArray(Codec):
    """Elements behind pointers, some of which may be null.

    Nothing on the wire says which ones: a null is the byte 0x30 in its place, and an element may begin with that byte
    too. The reading object knows; its list holds ``None`` in the same places.

    Arguments:
        element: what a pointer that is not null points to.
        length: how many pointers there are.
    """

    size = None
    static = False
    resumes = True

    def __init__(self, element: Codec, length: Length) -> None:
        self.kind = element.kind
        self.least = length if isinstance(length, int) and element.least else 0
        self.compressible = element.compressible
        self.element = element
        self.length = length

    def read(self, reader: Reader, holder: object, current: object) -> object:
        length = length_of(self.length, holder)
        reader.allow(length, min(1, self.element.least))
        if not isinstance(current, Sequence) or len(current) != length:
            raise Fault(f"expected {length} pointers in the object, to know which are null; it has {current!r:.60}")
        values: list[object] = []
        try:
            for old in current:
                codec = NULL if old is None else self.element
                values.append(codec.read(reader, holder, old))
        except Fault as fault:
            raise fault.at(reader.pos).under(f"[{len(values)}]") from fault.__cause__
        return values

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        length = length_of(self.length, holder)
        values = _elements(value, length)
        first = 0
        for index, item in enumerate(values):
            codec = NULL if item is None else self.element
            if index and (item is None) != (values[index - 1] is None):
                first = index
            end = next((at for at in range(index, length) if (values[at] is None) != (item is None)), length)
            place = None
            if notes is not None:
                place = notes.element(index - first, end - first) if notes.compress else notes.element(index, length)
            try:
                codec.write(item, holder, out, place)
            except Fault as fault:
                raise fault.under(f"[{index}]") from fault.__cause__

    def show(self, value: object, holder: object) -> Shown:
        return [
            (NULL if item is None else self.element).show(item, holder)
            for item in _elements(value, length_of(self.length, holder))
        ]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some elements of an array that one entry of a stream's JSON describes.

    Arguments:
        element: what each of them is.
        length: how many.
        place: what the entry says of its place: ``array_len``, ``index`` or nothing.
    """

    element: Codec
    length: int
    place: Mapping[str, object]


class Parts(Codec):
    """An array whose elements differ, as the JSON of a stream shows it: several entries under one name.

    Arguments:
        pieces: the entries, in order.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces: list[tuple[Array, Piece]] = []
        self._length = 0
        for piece in pieces:
            self._pieces.append((Array(piece.element, piece.length, self._length), piece))
            self._length += piece.length
        sizes = [array.size for array, _ in self._pieces]
        self.kind = pieces[0].element.kind
        self.size = None if None in sizes else sum(size or 0 for size in sizes)
        self.least = sum(array.least for array, _ in self._pieces)

    def read(self, reader: Reader, holder: object, current: object) -> object:
        values: list[object] = []
        for array, piece in self._pieces:
            values.extend(_elements(array.read(reader, holder, None), piece.length))
        return values

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        values = _elements(value, self._length)
        done = 0
        for array, piece in self._pieces:
            place = None if notes is None else Notes(notes.entries, notes.label, True, piece.place)
            array.write(values[done : done + piece.length], holder, out, place)
            done += piece.length

    def show(self, value: object, holder: object) -> Shown:
        values = _elements(value, self._length)
        shown: list[Shown] = []
        for array, piece in self._pieces:
            items = array.show(values[len(shown) : len(shown) + piece.length], holder)
            shown.extend(items if isinstance(items, list) else [items])
        return shown


class CountedBytes(Codec):
    """Raw bytes, as many as an attribute of the object says.

    Arguments:
        length: how many.
        kind: the type's name in the JSON.
    """

    size = None
    least = 0
    static = False

    def __init__(self, length: Length, kind: str) -> None:
        self.kind = kind
        self._length = length

    def read(self, reader: Reader, holder: object, current: object) -> object:
        start = reader.claim(length_of(self._length, holder))
        return bytes(reader.data[start : reader.pos])

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        length = length_of(self._length, holder)
        if not isinstance(value, bytes | bytearray | memoryview) or len(value) != length:
            raise Fault(f"expected {length} bytes, the object has {value!r:.60}")
        out += value
        if notes is not None:
            notes.add(self.kind, length)

    def show(self, value: object, holder: object) -> Shown:
        return bytes(value).hex(" ") if isinstance(value, bytes | bytearray | memoryview) else repr(value)
