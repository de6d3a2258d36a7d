"""Runs of elements.

Arrays are of fixed length, counted by another field, behind pointers, or as a stream shows them. Queues, lists and
trees have a 01 before each element and a 00 after the last; a tree has its number of nodes in front.
"""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

from migpool.vmsd.access import ATTRIBUTES
from migpool.vmsd.cells import NULL, SCALARS, Cell
from migpool.vmsd.codec import Codec, Fault, Notes, Reader, Shown, read_each, write_each

Length: TypeAlias = "int | str | Callable[..., int]"
"""How many: a number, the attribute that holds it, or a function of the object."""


_MORE = b"\x01"
_END = b"\x00"
_COUNT = SCALARS["uint32"]
_KEY = SCALARS["uint64"]


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

    def show(self, value: object, holder: object) -> list[Shown]:
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


def _another(reader: Reader) -> bool:
    start = reader.claim(1)
    marker = reader.data[start]
    if marker > 1:
        raise Fault(f"expected 01 before an element or 00 at the end, it is {marker:02x}", start)
    return marker == 1


class Queue(Codec):
    """A tail queue (``qtailq``) or a list (``qlist``); as a value, a list of objects.

    Loading replaces the list. The JSON of real streams cannot show the elements (each overwrites the one before), so
    the entry holds the total size alone.

    Arguments:
        element: what each element is.
        kind: the type's name in the JSON.
    """

    size = None
    least = 1
    static = False

    def __init__(self, element: Codec, kind: str) -> None:
        self.kind = kind
        self._element = element

    def read(self, reader: Reader, holder: object, current: object) -> object:
        another = iter(lambda: _another(reader), False)
        return read_each(reader, lambda _: self._element.read(reader, holder, None), another)

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        def node(_: int, item: object) -> None:
            out.extend(_MORE)
            self._element.write(item, holder, out, None)

        start = len(out)
        items = self._items(value)
        out += self._head(len(items))
        write_each(items, node)
        out += _END
        if notes is not None:
            notes.add(self.kind, len(out) - start)

    def show(self, value: object, holder: object) -> Shown:
        return [self._element.show(item, holder) for item in self._items(value)]

    def _items(self, value: object) -> Sequence[object]:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise Fault(f"expected a list of elements, the object has {value!r:.60}")
        return value

    def _head(self, count: int) -> bytes:
        """What stands before the first node."""
        return b""


class _Node(Codec):
    """A key and its value; as a value, a tuple of both."""

    kind = "node"
    size = None

    def __init__(self, key: Codec, value: Codec) -> None:
        self._parts = key, value
        self.least = key.least + value.least

    def read(self, reader: Reader, holder: object, current: object) -> tuple[object, ...]:
        return tuple([part.read(reader, holder, None) for part in self._parts])

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        for part, item in zip(self._parts, cast("tuple[object, ...]", value), strict=True):
            part.write(item, holder, out, None)

    def show(self, value: object, holder: object) -> Shown:
        items = zip(("key", "value"), self._parts, cast("tuple[object, ...]", value), strict=True)
        return {name: part.show(item, holder) for name, part, item in items}


class Tree(Queue):
    """A balanced tree (``gtree``); loading replaces it.

    With whole numbers as keys its value is a ``dict`` and it is written in ascending order; with structures as keys it
    is a list of pairs (key, value) in the order of the tree.

    Arguments:
        key: what the keys are; ``None`` for numbers of 64 bits.
        value: what the values are.
    """

    least = 5

    def __init__(self, key: Codec | None, value: Codec) -> None:
        super().__init__(_Node(key or _KEY, value), "gtree")
        self._numbered = key is None

    def read(self, reader: Reader, holder: object, current: object) -> object:
        start = reader.pos
        count = _COUNT.read(reader, holder, None)
        assert isinstance(count, int)
        reader.allow(count, 1 + self._element.least)
        pairs = cast("list[tuple[object, object]]", super().read(reader, holder, None))
        if len(pairs) != count:
            raise Fault(f"expected {count} nodes as announced, {len(pairs)} have come", start)
        if not self._numbered:
            return pairs
        if len(values := dict(pairs)) != count:
            raise Fault("expected every key once", start)
        return values

    def _items(self, value: object) -> Sequence[object]:
        if self._numbered and isinstance(value, Mapping):
            try:
                return sorted(value.items())
            except TypeError:
                raise Fault("expected whole numbers as keys") from None
        if not self._numbered and isinstance(value, Sequence):
            if all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
                return value
            raise Fault("expected pairs of key and value")
        raise Fault(f"expected {'a dict' if self._numbered else 'a list of pairs'}, the object has {value!r:.60}")

    def _head(self, count: int) -> bytes:
        return _COUNT.pack(count)
