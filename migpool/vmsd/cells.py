"""The parts of fixed size without parts of their own: numbers, truth values, timers, bitmaps, raw bytes.

Each is one item of a :class:`struct.Struct`, so that neighbours can be read and written together.
"""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from migpool.vmsd.codec import Codec, Fault, Notes, Reader, Shown

OFF: Final = -1
"""A timer that is off."""

_OFF: Final = 2**64 - 1
_NULL_BYTE: Final = 0x30
_MARKERS: Final = {"nullptr": {b"0": "nullptr"}, "ptr-marker": {b"0": "nullptr", b"1": "pointer"}}
"""How the byte is shown that stands for a pointer, by the type's name."""
_NOT_PACKED: Final = (struct.error, TypeError, ValueError, OverflowError)


class Cell(Codec):
    """One value of fixed size.

    Arguments:
        kind: the type's name in the JSON description.
        code: the value's format in :mod:`struct`, without byte order.
        accepts: what a value may be, for the message about one that is not.
        load: turns what :mod:`struct` read into the value; raises :class:`Fault` if it may not stand there.
        save: the opposite; raises :class:`Fault`.
    """

    def __init__(
        self,
        kind: str,
        code: str,
        accepts: str,
        load: Callable[[object], object] | None = None,
        save: Callable[[object], object] | None = None,
    ) -> None:
        self.kind = kind
        self.code = code
        self.load = load
        self.save = save
        self._accepts = accepts
        self._layout = struct.Struct(f">{code}")
        self.size: int = self._layout.size
        self.least = self._layout.size
        self._raw = code.endswith("s") or load is not None
        self._signed = code in "bhiq"

    def read(self, reader: Reader, holder: object, current: object) -> object:
        start = reader.claim(self.size)
        value: object = self._layout.unpack_from(reader.data, start)[0]
        if self.load is not None:
            try:
                return self.load(value)
            except Fault as fault:
                raise fault.at(start) from None
        return value

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        out += self.pack(value)
        if notes is not None:
            notes.add(self.kind, self.size)

    def pack(self, value: object) -> bytes:
        """The bytes of one value."""
        try:
            return self._layout.pack(value if self.save is None else self.save(value))
        except _NOT_PACKED:
            raise Fault(f"expected {self._accepts}, the object has {value!r:.60}") from None

    def read_many(self, reader: Reader, length: int, first: int = 0) -> list[object]:
        """Read ``length`` values that stand one after the other; the array counts them from ``first``."""
        start = reader.claim(self.size * length)
        if self.code.endswith("s"):
            raw = bytes(reader.data[start : reader.pos])
            values: list[object] = [raw[at * self.size : (at + 1) * self.size] for at in range(length)]
        else:
            values = list(struct.Struct(f">{length}{self.code}").unpack_from(reader.data, start))
        if self.load is not None:
            for index, value in enumerate(values):
                try:
                    values[index] = self.load(value)
                except Fault as fault:
                    raise fault.at(start + index * self.size).under(f"[{first + index}]") from None
        return values

    def write_many(self, values: Sequence[object], out: bytearray, first: int = 0) -> None:
        """Append values one after the other; the array counts them from ``first``."""
        if not self._raw:
            try:
                out += struct.Struct(f">{len(values)}{self.code}").pack(*values)
            except _NOT_PACKED:
                pass
            else:
                return
        for index, value in enumerate(values, first):
            try:
                out += self.pack(value)
            except Fault as fault:
                raise fault.under(f"[{index}]") from None

    def show(self, value: object, holder: object) -> Shown:
        if self.kind == "bool":
            return bool(value)
        packed = self.pack(value)
        if self.kind in _MARKERS:
            return _MARKERS[self.kind].get(packed, packed.hex())
        if self._raw:
            return packed.hex(" ")
        number = int.from_bytes(packed, "big", signed=self._signed)
        return f"0x{packed.hex()}" if number >= 0 else f"0x{packed.hex()} ({number})"


class Blank(Cell):
    """Bytes that mean nothing any more: written as zeros, and stepped over when read.

    An older source may have had a field there, so what stands in them is not checked.
    """

    carries = False

    def __init__(self, size: int) -> None:
        super().__init__("unused_buffer", f"{size}x", "nothing")

    def read(self, reader: Reader, holder: object, current: object) -> object:
        reader.claim(self.size)
        return None

    def read_many(self, reader: Reader, length: int, first: int = 0) -> list[object]:
        reader.claim(self.size * length)
        return [None] * length

    def write_many(self, values: Sequence[object], out: bytearray, first: int = 0) -> None:
        out += bytes(self.size * len(values))

    def pack(self, value: object) -> bytes:
        return bytes(self.size)

    def show(self, value: object, holder: object) -> Shown:
        return bytes(self.size).hex(" ")


def _load_bool(value: object) -> object:
    if value not in (0, 1):
        raise Fault(f"expected 0 or 1 for a truth value, it is {value}")
    return value == 1


def _save_bool(value: object) -> object:
    if value not in (0, 1):
        raise ValueError
    return int(value == 1)


def _load_timer(value: object) -> object:
    return None if value == _OFF else value


def _load_pointed_timer(value: object) -> object:
    return OFF if value == _OFF else value


def _save_timer(value: object) -> object:
    if value == _OFF:
        raise ValueError
    return _OFF if value is None or value == OFF else value


def _load_null(value: object) -> object:
    if value != _NULL_BYTE:
        raise Fault(f"expected 0x30 for an element that is not there, it is 0x{value:02x}")
    return None


def _save_null(value: object) -> object:
    if value is not None:
        raise ValueError
    return _NULL_BYTE


def _number(kind: str, code: str) -> Cell:
    bits = 8 * struct.Struct(f">{code}").size
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if code.islower() else (0, 2**bits - 1)
    return Cell(kind, code, f"a whole number from {low} to {high}")


NULL: Final = Cell("nullptr", "B", "None", _load_null, _save_null)
POINTED_TIMER: Final = Cell("timer", "Q", "nanoseconds below 2**64 - 1, or OFF", _load_pointed_timer, _save_timer)
"""A timer behind a pointer, where ``None`` would be a null pointer."""

SCALARS: Final = {
    cell.kind: cell
    for cell in (
        *(_number(kind, code) for kind, code in zip(("int8", "int16", "int32", "int64"), "bhiq", strict=True)),
        *(_number(kind, code) for kind, code in zip(("uint8", "uint16", "uint32", "uint64"), "BHIQ", strict=True)),
        *(_number(f"uint{bits} equal", code) for bits, code in ((8, "B"), (16, "H"), (32, "I"))),
        _number("int32 equal", "i"),
        _number("int32 le", "i"),
        _number("int64 equal", "Q"),
        Cell("bool", "B", "True or False", _load_bool, _save_bool),
        Cell("timer", "Q", "nanoseconds below 2**64 - 1, or None or OFF", _load_timer, _save_timer),
        Cell("CPU_Double_U", "d", "a floating-point number", lambda value: value, lambda value: value),
        NULL,
    )
}
"""The scalars by their type's name in a stream's JSON. There, ``int64 equal`` is the name of an unsigned one."""


@lru_cache
def bytes_cell(size: int, kind: str = "buffer") -> Cell:
    """``size`` raw bytes, under the type's name that the JSON has for them."""

    def save(value: object) -> object:
        if not isinstance(value, bytes | bytearray | memoryview) or len(value) != size:
            raise ValueError
        return bytes(value)

    return Cell(kind, f"{size}s", f"{size} bytes", save=save)


@lru_cache
def bitmap_cell(bits: int) -> Cell:
    """A bitmap as a whole number whose bit ``n`` is bit ``n`` of the map: 64 bits a word, the lowest word first."""
    words = (bits + 63) // 64
    layout = struct.Struct(f">{words}Q")

    def load(raw: object) -> object:
        assert isinstance(raw, bytes)
        value = sum(word << (64 * index) for index, word in enumerate(layout.unpack(raw)))
        if value >> bits:
            raise Fault(f"expected a bitmap of {bits} bits, bit {value.bit_length() - 1} is set")
        return value

    def save(value: object) -> object:
        if not isinstance(value, int) or value < 0 or value >> bits:
            raise ValueError
        return layout.pack(*((value >> (64 * index)) & _OFF for index in range(words)))

    return Cell("bitmap", f"{8 * words}s", f"a whole number of {bits} bits", load, save)
