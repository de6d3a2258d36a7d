"""The fields of a structure, and the two ways of taking them: one by one, or a run of them at once."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from migpool.vmsd.access import Access
from migpool.vmsd.cells import Cell
from migpool.vmsd.codec import Codec, Entry, Notes, Shown
from migpool.vmsd.payload import Fault, Reader

_NOT_GATHERED = (struct.error, TypeError, ValueError, OverflowError, LookupError, AttributeError, Fault)


@dataclass(frozen=True, slots=True)
class Member:
    """One field of a structure.

    Arguments:
        name: its name in messages.
        label: its name in the JSON, where names that occur twice are numbered.
        place: where its value lives in the object; empty if it carries none.
        codec: its form on the wire.
        since: the version of the structure in which it appeared; counts only without a condition.
        when: called with the object and the version; decides alone whether the field is there.
        check: called with what was read and what the object had; raises :class:`Fault` if it must not be loaded.
    """

    name: str
    label: str
    place: str
    codec: Codec
    since: int = 0
    when: Callable[..., object] | None = None
    check: Callable[[object, object], None] | None = None

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


class CodecStep(Protocol):
    """A part of a structure's plan."""

    def read(self, reader: Reader, holder: object) -> None:
        """Read into ``holder``."""

    def write(self, holder: object, out: bytearray, entries: list[Entry] | None) -> None:
        """Write from ``holder``, and describe what was written."""

    def show(self, holder: object, shown: dict[str, Shown]) -> None:
        """Print the values of ``holder``."""


class MemberStep:
    """One field that needs care of its own.

    Arguments:
        member: the field.
        access: where its value lives.
        version: the version of the structure that the plan is for.
    """

    __slots__ = ("_access", "_member", "_resumes", "_version")

    def __init__(self, member: Member, access: Access, version: int) -> None:
        self._member = member
        self._access = access
        self._version = version
        self._resumes = member.codec.resumes or member.check is not None

    def read(self, reader: Reader, holder: object) -> None:
        member = self._member
        if member.when is not None and not member.when(holder, self._version):
            return
        codec = member.codec
        if reader.skipping and codec.size is not None:
            reader.claim(codec.size)
            return
        start = reader.pos
        try:
            current = self._access.current(holder, member.place) if self._resumes and member.place else None
            value = codec.read(reader, holder, current)
            if member.check is not None:
                member.check(value, current)
            if member.place:
                self._access.put(holder, member.place, value)
        except Fault as fault:
            raise fault.at(start).under(member.name) from fault.__cause__

    def write(self, holder: object, out: bytearray, entries: list[Entry] | None) -> None:
        member = self._member
        if member.when is not None and not member.when(holder, self._version):
            return
        try:
            value = self._access.get(holder, member.place) if member.place else None
            notes = None if entries is None else Notes(entries, member.label, member.compressible, {})
            member.codec.write(value, holder, out, notes)
        except Fault as fault:
            raise fault.under(member.name) from fault.__cause__

    def show(self, holder: object, shown: dict[str, Shown]) -> None:
        member = self._member
        if member.codec.silent or (member.when is not None and not member.when(holder, self._version)):
            return
        try:
            value = self._access.get(holder, member.place) if member.place else None
            shown[member.label] = member.codec.show(value, holder)
        except Fault as fault:
            raise fault.under(member.name) from fault.__cause__


class RunStep:
    """Neighbouring cells that are always there, read and written as one.

    Arguments:
        members: the fields, all of them :attr:`Member.packs`.
        access: where their values live.
    """

    def __init__(self, members: Sequence[Member], access: Access) -> None:
        cells = [member.codec for member in members if isinstance(member.codec, Cell)]
        carried = [(member, cell) for member, cell in zip(members, cells, strict=True) if cell.carries and member.place]
        self._access = access
        self._layout = struct.Struct(">" + "".join(cell.code for cell in cells))
        self._size = self._layout.size
        self._names = tuple(member.place for member, _ in carried)
        self._gather = access.gather(self._names) if carried else lambda _: ()
        self._loads = [(index, cell.load) for index, (_, cell) in enumerate(carried) if cell.load is not None]
        self._saves = [(index, cell.save) for index, (_, cell) in enumerate(carried) if cell.save is not None]
        self._single = [MemberStep(member, access, 0) for member in members]

    def read(self, reader: Reader, holder: object) -> None:
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
        for step in self._single:
            step.show(holder, shown)
