"""Runs of elements whose number is known before them.

Of fixed length, counted by another field, a part of something longer, behind pointers, or as a stream shows them.
"""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any, TypeAlias, cast

from migpool.vmsd.access import ATTRIBUTES
from migpool.vmsd.cells import NULL, SCALARS, Cell
from migpool.vmsd.codec import Codec, Fault, Notes, Reader, Shown, ask, read_each, write_each

Length: TypeAlias = "int | str | Callable[[Any], int]"
"""How many: a number, the attribute that holds it, or a function of the object."""

_NULL = 0x30
_THERE = 0x31
COUNT = SCALARS["uint32"]
"""A count that stands in the stream before what it counts."""


def length_of(length: Length, holder: object) -> int:
    """How many elements there are, for this object."""
    if isinstance(length, int):
        return length
    count = ATTRIBUTES.get(holder, length) if isinstance(length, str) else ask(length, "length", holder)
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

    def read(self, reader: Reader, holder: object, current: object) -> list[object]:
        element = self.element
        length = length_of(self.length, holder)
        reader.allow(length, element.least)
        if isinstance(element, Cell):
            return element.read_many(reader, length, self._first)
        given: Sequence[object] = (None,) * length
        if element.resumes and isinstance(current, Sequence) and len(current) == length:
            given = current
        return read_each(reader, lambda old: element.read(reader, holder, old), given, self._first)

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        element = self.element
        length = length_of(self.length, holder)
        values = _elements(value, length) if element.carries else (None,) * length
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

    def show(self, value: object, holder: object) -> list[Shown]:
        length = length_of(self.length, holder)
        values = _elements(value, length) if self.element.carries else (None,) * length
        return [self.element.show(item, holder) for item in values]


class Part(Codec):
    """Some elements of a list, or bytes of a buffer; the others stay as they are.

    Arguments:
        codec: these elements or bytes.
        start: the index of the first one.
        length: how many there are.
    """

    resumes = True

    def __init__(self, codec: Codec, start: int, length: int) -> None:
        self.kind = codec.kind
        self.size = codec.size
        self.least = codec.least
        self.static = codec.static
        self.compressible = codec.compressible
        self.element = codec.element if isinstance(codec, Array) else codec
        self.length = length
        self._codec = codec
        self._part = slice(start, start + length)

    def read(self, reader: Reader, holder: object, current: object) -> object:
        if reader.skipping:
            return self._codec.read(reader, holder, None)
        whole = self._whole(current)
        values = self._codec.read(reader, holder, whole[self._part])
        assert isinstance(values, list | bytes)
        if isinstance(whole, MutableSequence):
            whole[self._part] = values
            return whole
        changed = (*whole[: self._part.start], *values, *whole[self._part.stop :])
        return bytes(cast("tuple[int, ...]", changed)) if isinstance(values, bytes) else changed

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        self._codec.write(self._whole(value)[self._part], holder, out, notes)

    def show(self, value: object, holder: object) -> Shown:
        return self._codec.show(self._whole(value)[self._part], holder)

    def _whole(self, value: object) -> Sequence[object]:
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < self._part.stop:
            raise Fault(f"expected at least {self._part.stop} elements in the object, it has {value!r:.60}")
        return value


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
        return read_each(reader, lambda old: self._of(old).read(reader, holder, old), current)

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        length = length_of(self.length, holder)
        values = _elements(value, length)
        first = 0

        def write(index: int, item: object) -> None:
            nonlocal first
            if index and (item is None) != (values[index - 1] is None):
                first = index
            place = notes
            if notes is not None and notes.compress:
                end = next((at for at in range(index, length) if (values[at] is None) != (item is None)), length)
                place = notes.element(index - first, end - first)
            elif notes is not None:
                place = notes.element(index, length)
            self._of(item).write(item, holder, out, place)

        write_each(values, write)

    def show(self, value: object, holder: object) -> Shown:
        items = _elements(value, length_of(self.length, holder))
        return [self._of(item).show(item, holder) for item in items]

    def _of(self, item: object) -> Codec:
        return NULL if item is None else self.element


class AllocatedArray(Codec):
    """Elements behind pointers, and before each a byte that says whether it is there: 0x31, or 0x30 for a null.

    So nobody need know which ones are: loading makes every element that has come.

    Arguments:
        element: what a pointer that is not null points to.
        length: how many pointers there are.
    """

    size = None
    compressible = False

    def __init__(self, element: Codec, length: Length) -> None:
        self.kind = element.kind
        self.least = length if isinstance(length, int) else 0
        self.static = isinstance(length, int) and element.static
        self.element = element
        self.length = length

    def read(self, reader: Reader, holder: object, current: object) -> object:
        length = length_of(self.length, holder)
        reader.allow(length, 1)

        def read(_: int) -> object:
            start = reader.claim(1)
            if (marker := reader.data[start]) not in (_NULL, _THERE):
                raise Fault(f"expected 0x31 before an element or 0x30 for none, it is 0x{marker:02x}", start)
            return self.element.read(reader, holder, None) if marker == _THERE else None

        return read_each(reader, read, range(length))

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        def write(_: int, item: object) -> None:
            out.append(_NULL if item is None else _THERE)
            if notes is not None:
                notes.add("ptr-marker", 1)
            if item is not None:
                self.element.write(item, holder, out, notes)

        write_each(_elements(value, length_of(self.length, holder)), write)

    def show(self, value: object, holder: object) -> Shown:
        items = _elements(value, length_of(self.length, holder))
        return [NULL.show(item, holder) if item is None else self.element.show(item, holder) for item in items]


class Parts(Codec):
    """An array whose elements differ, as the JSON of a stream shows it: several entries under one name.

    Arguments:
        pieces: of each entry, in order, the codec of its elements, how many there are, and what the entry says of its
            place: ``array_len``, ``index`` or nothing.
    """

    def __init__(self, pieces: Sequence[tuple[Codec, int, Mapping[str, object]]]) -> None:
        self._pieces: list[tuple[Array, slice, Mapping[str, object]]] = []
        self._length = 0
        for element, length, place in pieces:
            begin, self._length = self._length, self._length + length
            self._pieces.append((Array(element, length, begin), slice(begin, self._length), place))
        arrays = [array for array, _, _ in self._pieces]
        self.kind = arrays[0].kind
        sizes = [array.size for array in arrays if array.size is not None]
        self.size = sum(sizes) if len(sizes) == len(arrays) else None
        self.least = sum(array.least for array in arrays)

    def read(self, reader: Reader, holder: object, current: object) -> object:
        values: list[object] = []
        for array, _, _ in self._pieces:
            values.extend(array.read(reader, holder, None))
        return values

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        values = _elements(value, self._length)
        for array, part, place in self._pieces:
            array.write(values[part], holder, out, notes and Notes(notes.entries, notes.label, True, place))

    def show(self, value: object, holder: object) -> Shown:
        values = _elements(value, self._length)
        return [each for array, part, _ in self._pieces for each in array.show(values[part], holder)]
