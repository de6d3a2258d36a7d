"""Runs of elements of which the stream says after each whether another follows: queues, lists and trees.

There is a 01 before each element and a 00 after the last; a tree has its number of nodes in front.
"""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from migpool.vmsd.arrays import COUNT
from migpool.vmsd.cells import SCALARS
from migpool.vmsd.codec import Codec, Fault, Notes, Reader, Shown, read_each, write_each

_MORE = b"\x01"
_END = b"\x00"
_KEY = SCALARS["uint64"]


def _another(reader: Reader) -> bool:
    if reader.complete and not reader.left:
        raise Fault("expected 01 before an element or 00 at the end, the payload ends without", reader.pos)
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

    def __init__(self, element: Codec, kind: str) -> None:
        self.kind = kind
        self.static = element.static
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
        self.static = key.static and value.static

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
        count = COUNT.read(reader, holder, None)
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
        return COUNT.pack(count)
