"""The fields of a structure, and the two ways of taking them: one by one, or a run of them at once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TypeAlias

from migpool.vmsd.access import Access
from migpool.vmsd.cells import Cell
from migpool.vmsd.codec import Codec, Entry, Fault, Notes, Reader, Shown

_NOT_GATHERED = (struct.error, TypeError, ValueError, OverflowError, LookupError, AttributeError, Fault)


Condition: TypeAlias = Callable[..., object]
"""Called with the object and the section's version; says whether a field is there."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a structure; declared ones are made by the functions of :mod:`~migpool.vmsd.fields`.

    Arguments:
        name: its name in messages, and in the stream's JSON but where names occur twice.
        codec: its form on the wire.
        line: where it was declared, ``file:line``; empty if a stream's JSON says it.
        attribute: where its value lives in the object; empty for one without a value there.
        since: the version in which it appeared; counts only without a condition.
        when: called with the object and the version; decides alone whether the field is there.
        check: called with what was read and what the object had; raises :class:`Fault` if it must not be loaded.
        count: the attribute that holds its length.
        number: which one it is of those with its name, if there are several: the JSON shows ``name[number]``.
    """

    name: str
    codec: Codec
    line: str
    attribute: str
    since: int = 0
    when: Condition | None = None
    check: Callable[[object, object], None] | None = None
    count: str | None = None
    number: int | None = None

    @property
    def label(self) -> str:
        """Its name in the JSON."""
        return self.name if self.number is None else f"{self.name}[{self.number}]"

    @property
    def packs(self) -> bool:
        """It can be read and written together with its neighbours."""
        return isinstance(self.codec, Cell) and self.when is None and self.check is None

    @property
    def static(self) -> bool:
        """Its length follows from the bytes alone."""
        return self.when is None and self.codec.static

    @property
    def compressible(self) -> bool:
        """An array of the structure may still be described by one element."""
        return self.when is None and self.codec.compressible


def declared_at(frame: FrameType) -> str:
    """The place of a declaration, ``file:line``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class FieldStep:
    """One field that needs care of its own.

    Arguments:
        field: the field.
        access: where its value lives.
        version: the version of the structure that the plan is for.
    """

    __slots__ = ("_access", "_compressible", "_field", "_label", "_resumes", "_version")

    def __init__(self, field: Field, access: Access, version: int) -> None:
        self._field = field
        self._access = access
        self._version = version
        self._label = field.label
        self._compressible = field.compressible
        self._resumes = bool(field.attribute) and (field.codec.resumes or field.check is not None)

    def read(self, reader: Reader, holder: object) -> None:
        """Read into ``holder``."""
        field = self._field
        if field.when is not None and not field.when(holder, self._version):
            return
        codec = field.codec
        if reader.skipping and codec.size is not None:
            reader.claim(codec.size)
            return
        start = reader.pos
        try:
            current = self._access.current(holder, field.attribute) if self._resumes else None
            value = codec.read(reader, holder, current)
            if field.check is not None:
                field.check(value, current)
            if field.attribute:
                self._access.put(holder, field.attribute, value)
        except Fault as fault:
            raise fault.at(start).under(field.name) from fault.__cause__

    def write(self, holder: object, out: bytearray, entries: list[Entry] | None) -> None:
        """Write from ``holder``, and describe what was written."""
        field = self._field
        if field.when is not None and not field.when(holder, self._version):
            return
        try:
            value = self._access.get(holder, field.attribute) if field.attribute else None
            notes = None if entries is None else Notes(entries, self._label, self._compressible, {})
            field.codec.write(value, holder, out, notes)
        except Fault as fault:
            raise fault.under(field.name) from fault.__cause__

    def show(self, holder: object, shown: dict[str, Shown]) -> None:
        """Print the values of ``holder``."""
        field = self._field
        if field.codec.silent or (field.when is not None and not field.when(holder, self._version)):
            return
        try:
            value = self._access.get(holder, field.attribute) if field.attribute else None
            shown[self._label] = field.codec.show(value, holder)
        except Fault as fault:
            raise fault.under(field.name) from fault.__cause__


class RunStep:
    """Neighbouring cells that are always there, read and written as one.

    Arguments:
        fields: all of them :attr:`Field.packs`.
        access: where their values live.
    """

    def __init__(self, fields: Sequence[Field], access: Access) -> None:
        cells = [field.codec for field in fields if isinstance(field.codec, Cell)]
        carried = [(field, cell) for field, cell in zip(fields, cells, strict=True) if cell.carries and field.attribute]
        self._access = access
        self._layout = struct.Struct(">" + "".join(cell.code for cell in cells))
        self._size = self._layout.size
        self._names = tuple(field.attribute for field, _ in carried)
        self._gather = access.gather(self._names) if carried else lambda _: ()
        self._loads = [(index, cell.load) for index, (_, cell) in enumerate(carried) if cell.load is not None]
        self._saves = [(index, cell.save) for index, (_, cell) in enumerate(carried) if cell.save is not None]
        self._single = [FieldStep(field, access, 0) for field in fields]

    def read(self, reader: Reader, holder: object) -> None:
        """Read into ``holder``."""
        start = reader.pos
        if self._size > reader.end - start:
            self._read_each(reader, holder)
        elif reader.skipping:
            reader.pos = start + self._size
        else:
            values: Sequence[object] = self._layout.unpack_from(reader.data, start)
            if self._loads:
                changed = list(values)
                try:
                    for index, load in self._loads:
                        changed[index] = load(changed[index])
                except Fault:
                    self._read_each(reader, holder)
                values = changed
            reader.pos = start + self._size
            self._access.fill(holder, self._names, values)

    def _read_each(self, reader: Reader, holder: object) -> None:
        """Find the field at which the bytes end or go wrong: this raises."""
        for step in self._single:
            step.read(reader, holder)

    def write(self, holder: object, out: bytearray, entries: list[Entry] | None) -> None:
        """Write from ``holder``, and describe what was written."""
        if entries is None:
            try:
                values: Sequence[object] = self._gather(holder)
                if self._saves:
                    changed = list(values)
                    for index, save in self._saves:
                        changed[index] = save(changed[index])
                    values = changed
                out += self._layout.pack(*values)
            except _NOT_GATHERED:
                pass
            else:
                return
        for step in self._single:
            step.write(holder, out, entries)

    def show(self, holder: object, shown: dict[str, Shown]) -> None:
        """Print the values of ``holder``."""
        for step in self._single:
            step.show(holder, shown)
