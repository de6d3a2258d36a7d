"""Single values whose size varies: as the object says, as the stream says, or by how they cross."""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Callable

from migpool.vmsd.arrays import COUNT, Length, length_of
from migpool.vmsd.cells import SCALARS, Cell
from migpool.vmsd.codec import Codec, Fault, Notes, Reader, Shown, Written

_PASSED = b" "
_NUMBER = SCALARS["int32"]


class Counted(Codec):
    """A value that is as long as the object says.

    Arguments:
        length: how long: bytes, or bits of a bitmap.
        made: its codec for each length.
        kind: the type's name in the JSON.
    """

    size = None
    least = 0
    static = False

    def __init__(self, length: Length, made: Callable[[int], Cell], kind: str) -> None:
        self.kind = kind
        self._length = length
        self._made = made

    def read(self, reader: Reader, holder: object, current: object) -> object:
        return self._made(length_of(self._length, holder)).read(reader, holder, current)

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        self._made(length_of(self._length, holder)).write(value, holder, out, notes)

    def show(self, value: object, holder: object) -> Shown:
        return self._made(length_of(self._length, holder)).show(value, holder)


class Descriptor(Codec):
    """An open file: its number, or a blank for one that is passed beside the bytes, as the caller wants it."""

    kind = "fd"
    size = None
    least = 1

    def read(self, reader: Reader, holder: object, current: object) -> object:
        if reader.passed is None:
            return _NUMBER.read(reader, holder, None)
        start = reader.claim(1)
        if reader.data[start : start + 1] != _PASSED:
            raise Fault(f"expected 0x20 for a descriptor that is passed, it is 0x{reader.data[start]:02x}", start)
        if (found := next(reader.passed, None)) is None:
            raise Fault("expected another descriptor beside the bytes", start)
        return found

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        data = _NUMBER.pack(value)
        if isinstance(out, Written) and isinstance(value, int):
            out.passed.append(value)
            data = _PASSED
        out += data
        if notes is not None:
            notes.add(self.kind, len(data))

    def show(self, value: object, holder: object) -> Shown:
        return _NUMBER.show(value, holder)


class ByteArray(Codec):
    """Raw bytes behind their number, which the stream has; a new one when loaded."""

    kind = "GByteArray"
    size = None
    least = COUNT.size

    def read(self, reader: Reader, holder: object, current: object) -> object:
        count = COUNT.read(reader, holder, None)
        assert isinstance(count, int)
        start = reader.claim(count)
        return bytes(reader.data[start : reader.pos])

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise Fault(f"expected bytes, the object has {value!r:.60}")
        out += COUNT.pack(len(value)) + value
        if notes is not None:
            notes.add(self.kind, COUNT.size + len(value))

    def show(self, value: object, holder: object) -> Shown:
        out = bytearray()
        self.write(value, holder, out, None)
        return out.hex(" ")
