"""The fields of a structure, and the two ways of taking them: one by one, or a run of them at once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from migpool.vmsd.access import Access
from migpool.vmsd.cells import Cell
from migpool.vmsd.codec import Codec, Entry, Fault, Notes, Reader, Shown, ask, told

Condition: TypeAlias = Callable[[Any, int], object]
"""Called with the object and the section's version; says whether a field is there."""


@dataclass(frozen=True, slots=True, repr=False)
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
        must: it has no bytes and no value: ``when`` must be true here.
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
    must: bool = False
    number: int | None = None

    def __repr__(self) -> str:
        return f"the field {self.name}"

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


class FieldStep:
    """One field that needs care of its own.

    Arguments:
        field: the field.
        access: where its value lives.
        version: the version of the structure that the plan is for.
    """

    __slots__ = ("_access", "_compressible", "_field", "_getter", "_label", "_resumes", "_version")

    def __init__(self, field: Field, access: Access, version: int) -> None:
        self._field = field
        self._access = access
        self._getter = access.getter(field.attribute) if field.attribute else lambda _: None
        self._version = version
        self._label = field.label
        self._compressible = field.compressible
        self._resumes = bool(field.attribute) and (field.codec.resumes or field.check is not None)

    def read(self, reader: Reader, holder: object) -> None:
        """Read into ``holder``."""
        field = self._field
        codec = field.codec
        start = reader.pos
        try:
            if field.when is not None and not self._there(holder):
                return
            if reader.skipping:
                if codec.size is None:
                    codec.read(reader, holder, None)
                else:
                    reader.claim(codec.size)
                return
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
        try:
            if field.when is not None and not self._there(holder):
                return
            try:
                value = self._getter(holder)
            except Exception:  # noqa: BLE001 -- this way it says what is wrong
                value = self._access.get(holder, field.attribute)
            notes = None if entries is None else Notes(entries, self._label, self._compressible, {})
            field.codec.write(value, holder, out, notes)
        except Fault as fault:
            if fault.__cause__ is not None:
                fault.at(len(out))
            raise fault.under(field.name) from fault.__cause__

    def show(self, holder: object, shown: dict[str, Shown]) -> None:
        """Print the values of ``holder``."""
        field = self._field
        try:
            if field.when is not None and not self._there(holder):
                return
            value = self._access.get(holder, field.attribute) if field.attribute else None
            shown[self._label] = field.codec.show(value, holder)
        except Fault as fault:
            raise fault.under(field.name) from fault.__cause__

    def _there(self, holder: object) -> object:
        """Whether the field has a place among the bytes."""
        try:
            return self._field.when(holder, self._version)  # type: ignore[misc]  # asked only of one with a condition
        except Exception as error:
            raise told(error, "when") from error


class CheckStep(FieldStep):
    """A condition that must hold here; there are no bytes for it."""

    __slots__ = ()

    def _there(self, holder: object) -> object:
        if self._field.when is not None and not ask(self._field.when, "condition", holder, self._version):
            raise Fault("the condition does not hold")
        return False


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
            try:
                self._access.fill(holder, self._names, values)
            except Fault:
                self._read_each(reader, holder)
            reader.pos = start + self._size

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
            except Exception:  # noqa: BLE001 -- one by one it shows which field is to blame
                pass
            else:
                return
        for step in self._single:
            step.write(holder, out, entries)

    def show(self, holder: object, shown: dict[str, Shown]) -> None:
        """Print the values of ``holder``."""
        for step in self._single:
            step.show(holder, shown)
