"""Queues, lists and trees: a 01 before each element, a 00 after the last; a tree has its number of nodes in front."""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Mapping, Sequence

from migpool.vmsd.cells import SCALARS
from migpool.vmsd.codec import Codec, Notes, Shown
from migpool.vmsd.nested import Nested
from migpool.vmsd.payload import Fault, Reader

_MORE = b"\x01"
_END = b"\x00"
_COUNT = SCALARS["uint32"]
_KEY = SCALARS["uint64"]


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

    def __init__(self, element: Nested, kind: str) -> None:
        self.kind = kind
        self._element = element

    def read(self, reader: Reader, holder: object, current: object) -> object:
        values: list[object] = []
        try:
            while _another(reader):
                values.append(self._element.read(reader, holder, None))
        except Fault as fault:
            raise fault.at(reader.pos).under(f"[{len(values)}]") from fault.__cause__
        return values

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        start = len(out)
        for index, item in enumerate(self._items(value)):
            out += _MORE
            try:
                self._element.write(item, holder, out, None)
            except Fault as fault:
                raise fault.under(f"[{index}]") from fault.__cause__
        out += _END
        if notes is not None:
            notes.add(self.kind, len(out) - start)

    def show(self, value: object, holder: object) -> Shown:
        return [self._element.show(item, holder) for item in self._items(value)]

    def _items(self, value: object) -> Sequence[object]:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise Fault(f"expected a list of elements, the object has {value!r:.60}")
        return value


class Tree(Codec):
    """A balanced tree (``gtree``); loading replaces it.

    With whole numbers as keys its value is a ``dict`` and it is written in ascending order; with structures as keys it
    is a list of pairs (key, value) in the order of the tree.

    Arguments:
        key: what the keys are; ``None`` for numbers of 64 bits.
        value: what the values are.
    """

    kind = "gtree"
    size = None
    least = 5
    static = False

    def __init__(self, key: Nested | None, value: Nested) -> None:
        self._key = key
        self._value = value
        self._node = 1 + (_KEY.least if key is None else key.least) + value.least

    def read(self, reader: Reader, holder: object, current: object) -> object:
        start = reader.pos
        count = _COUNT.read(reader, holder, None)
        assert isinstance(count, int)
        reader.allow(count, self._node)
        pairs: list[tuple[object, object]] = []
        try:
            while _another(reader):
                key = (self._key or _KEY).read(reader, holder, None)
                pairs.append((key, self._value.read(reader, holder, None)))
        except Fault as fault:
            raise fault.at(reader.pos).under(f"[{len(pairs)}]") from fault.__cause__
        if len(pairs) != count:
            raise Fault(f"expected {count} nodes as announced, {len(pairs)} have come", start)
        if self._key is not None:
            return pairs
        if len(values := dict(pairs)) != count:
            raise Fault("expected every key once", start)
        return values

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        start = len(out)
        pairs = self._pairs(value)
        out += _COUNT.pack(len(pairs))
        for index, (key, item) in enumerate(pairs):
            out += _MORE
            try:
                (self._key or _KEY).write(key, holder, out, None)
                self._value.write(item, holder, out, None)
            except Fault as fault:
                raise fault.under(f"[{index}]") from fault.__cause__
        out += _END
        if notes is not None:
            notes.add(self.kind, len(out) - start)

    def show(self, value: object, holder: object) -> Shown:
        return [
            {"key": (self._key or _KEY).show(key, holder), "value": self._value.show(item, holder)}
            for key, item in self._pairs(value)
        ]

    def _pairs(self, value: object) -> Sequence[tuple[object, object]]:
        if self._key is None and isinstance(value, Mapping):
            try:
                return sorted(value.items())
            except TypeError:
                raise Fault("expected whole numbers as keys") from None
        if self._key is not None and isinstance(value, Sequence):
            if all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
                return value
            raise Fault("expected pairs of key and value")
        raise Fault(f"expected {'a dict' if self._key is None else 'a list of pairs'}, the object has {value!r:.60}")
