"""Structures inside of structures. They have no header on the wire: the local description says their version."""

# ruff: noqa: ARG002 - all parts share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Callable

from migpool.vmsd.access import Overlay
from migpool.vmsd.codec import Codec, Entry, Fault, Notes, Reader, Shown
from migpool.vmsd.structure import Structure


class Nested(Codec):
    """A structure in the place of a field.

    Arguments:
        structure: what it consists of.
        fresh: makes the object to load into when there is none yet.
        version: the version of its layout; with it, the JSON calls the field a ``vstruct``.
    """

    resumes = True

    def __init__(self, structure: Structure, fresh: Callable[[], object], version: int | None = None) -> None:
        plan = structure.plan(structure.version if version is None else version)
        self.kind = "struct" if version is None else "vstruct"
        self.size = None if structure.subsections else plan.size
        self.least = plan.least
        self.static = structure.static
        self.compressible = version is not None or structure.compressible
        self.structure = structure
        self._fresh = fresh
        self._version = structure.version if version is None else version

    def read(self, reader: Reader, holder: object, current: object) -> object:
        if current is None:
            target = self._fresh()
        else:
            target = current if reader.complete else Overlay(current)
        self.structure.read(reader, target, self._version)
        return target

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        if value is None:
            raise Fault(f"expected the state of {self.structure.name}, the object has None")
        if notes is None:
            self.structure.write(value, self._version, out, None)
            return
        start = len(out)
        detail: Entry = {}
        self.structure.write(value, self._version, out, detail)
        notes.add(self.kind, len(out) - start, {"struct": detail} if self.kind == "struct" else detail)

    def show(self, value: object, holder: object) -> Shown:
        return self.structure.show(value, self._version)


class Temporary(Codec):
    """Values that exist only on the wire, computed from the object when saving and taken apart when loading.

    An object is made for them each time; the structure's hooks ``pre_save`` and ``post_load`` do the computing.

    Arguments:
        structure: the values.
        fresh: called with the object that is saved or loaded, makes the object that holds the values.
        kept: the object has them as a value (a record), so none needs to be made.
    """

    kind = "tmp"

    def __init__(self, structure: Structure, fresh: Callable[..., object], *, kept: bool = False) -> None:
        self.size = structure.size
        self.least = structure.least
        self.static = structure.static
        self._structure = structure
        self._fresh = fresh
        self._kept = kept

    def read(self, reader: Reader, holder: object, current: object) -> object:
        target = self._fresh(holder)
        self._structure.read(reader, target, self._structure.version)
        return target

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        start = len(out)
        detail: Entry | None = None if notes is None else {}
        target = value if self._kept else self._fresh(holder)
        self._structure.write(target, self._structure.version, out, detail)
        if notes is not None:
            notes.add(self.kind, len(out) - start, detail)

    def show(self, value: object, holder: object) -> Shown:
        out = bytearray()
        self.write(value, holder, out, None)
        return out.hex(" ")
