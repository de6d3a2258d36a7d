"""A structure: fields in their order, then optional subsections; also as a field of another. The heart of the codec.

For each version that a structure can have on the wire it compiles a plan once. Neighbours of fixed size that are
always there become one :class:`struct.Struct`; when such a run does not fit, its fields are taken one by one, which
finds the field to blame.
"""

# ruff: noqa: ARG002 - all codecs share one signature, and most need less than all of it
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import Any

from migpool.vmsd.access import Access
from migpool.vmsd.codec import SUBSECTION, Codec, Entry, Fault, Notes, Reader, Shown, ask
from migpool.vmsd.steps import CheckStep, Field, FieldStep, RunStep

_VERSION = Struct(">I")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is called around saving and loading; ``post_load`` also gets the version that was loaded."""

    pre_save: Callable[[Any], None] | None = None
    post_save: Callable[[Any], None] | None = None
    pre_load: Callable[[Any], None] | None = None
    post_load: Callable[[Any, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Subsection:
    """An optional part at a structure's end.

    Arguments:
        structure: what it consists of.
        needed: called with the object at the source; without it, it is sent whenever the object has it.
    """

    structure: Structure
    needed: Callable[[Any], object] | None = None


@dataclass(slots=True)
class _Plan:
    """The steps of one version, how many bytes they always take, if that is certain, and how many at least."""

    steps: list[FieldStep | RunStep]
    size: int | None
    least: int


class Structure:
    """A named, versioned list of fields.

    Arguments:
        name: the name that subsections begin with and that the JSON shows as ``vmsd_name``.
        version: the version that is written.
        minimum_version: the oldest version that can be read.
        fields: what it consists of, in the order of the wire.
        subsections: what may follow them.
        access: where the values live.
        hooks: what to call around it.

    Attributes:
        size: how many bytes it always takes, or ``None``.
        least: the fewest bytes it takes at its own version.
        static: its length follows from the bytes alone.
        compressible: an array of it is described by its first element.
    """

    size: int | None
    least: int
    static: bool
    compressible: bool

    def __init__(
        self,
        name: str,
        version: int,
        minimum_version: int,
        fields: Sequence[Field],
        subsections: Sequence[Subsection],
        access: Access,
        hooks: Hooks | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.minimum_version = minimum_version
        self.fields = tuple(fields)
        self.access = access
        self._hooks = hooks or Hooks()
        self._name = name.encode("ascii")
        self._subsections = {subsection.structure.name: subsection for subsection in subsections}
        self._subsection_names = tuple(self._subsections)
        self._plans: dict[int, _Plan] = {}
        plan = self.plan(version)
        self.size = None if subsections else plan.size
        self.least = plan.least
        self.static = all(field.static for field in fields) and all(
            subsection.structure.static for subsection in subsections
        )
        self.compressible = not subsections and all(field.compressible for field in fields)

    @property
    def subsections(self) -> tuple[Subsection, ...]:
        """The subsections, in their order."""
        return tuple(self._subsections.values())

    def plan(self, version: int) -> _Plan:
        """The steps for one version; compiled when first asked for."""
        plan = self._plans.get(version)
        if plan is None:
            plan = self._plans[version] = self._compile(version)
        return plan

    def _compile(self, version: int) -> _Plan:
        steps: list[FieldStep | RunStep] = []
        run: list[Field] = []
        size: int | None = 0
        least = 0
        for field in self.fields:
            if field.when is None and field.since > version:
                continue
            if field.when is None:
                least += field.codec.least
            size = None if size is None or field.when or field.codec.size is None else size + field.codec.size
            if field.packs:
                run.append(field)
                continue
            if run:
                steps.append(RunStep(run, self.access))
                run = []
            steps.append((CheckStep if field.must else FieldStep)(field, self.access, version))
        if run:
            steps.append(RunStep(run, self.access))
        return _Plan(steps, size, least)

    # ------------------------------------------------------------- reading

    def load(self, reader: Reader, state: object, version: int) -> None:
        """Read a whole payload of a version into ``state``.

        Raises:
            Fault: it is too short, too long or damaged, or has a version that cannot be read.
        """
        self.accept(version)
        self.read(reader, state, version)
        if reader.left:
            raise Fault(f"expected the end of the payload, {reader.left} bytes follow", reader.pos)

    def accept(self, version: int) -> None:
        """Refuse a version that this structure cannot read, with a :class:`Fault`."""
        if version > self.version:
            raise Fault(f"the state has version {version}, this description reads up to {self.version}")
        if version < self.minimum_version:
            raise Fault(f"the state has version {version}, this description reads from {self.minimum_version} on")

    def read(self, reader: Reader, holder: object, version: int) -> None:
        """Read the fields of ``version`` and whatever subsections have come into ``holder``; call its hooks."""
        start = reader.pos
        self.read_parts(reader, holder, version)
        if self._hooks.post_load is not None and not reader.skipping:
            self._call("post_load", start, holder, version)

    def read_parts(self, reader: Reader, holder: object, version: int) -> None:
        """As :meth:`read`, without ``post_load``: nothing in the bytes can depend on that."""
        if self._hooks.pre_load is not None and not reader.skipping:
            self._call("pre_load", reader.pos, holder)
        for step in self.plan(version).steps:
            step.read(reader, holder)
        seen: list[str] = []
        start = reader.pos
        while (found := reader.subsection(self._name, bool(self._subsections))) is not None:
            try:
                self._read_subsection(reader, holder, *found, seen)
            except Fault as fault:
                raise fault.at(start) from fault.__cause__
            start = reader.pos

    def _read_subsection(self, reader: Reader, holder: object, name: str, version: int, seen: list[str]) -> None:
        subsection = self._subsections.get(name)
        if subsection is None:
            known = ", ".join(self._subsections) or "none"
            raise Fault(f"subsection {name!r} is not known here; known: {known}")
        if name in seen:
            raise Fault(f"subsection {name} has come twice")
        seen.append(name)
        structure = subsection.structure
        try:
            structure.accept(version)
            structure.read(reader, holder if reader.skipping else self.access.open(holder, name), version)
        except Fault as fault:
            raise fault.under(name) from fault.__cause__

    # -------------------------------------------------------------- writing

    def write(self, holder: object, version: int, out: bytearray, entry: Entry | None) -> None:
        """Append the fields of ``version`` and the subsections that are needed.

        Arguments:
            holder: what to save.
            version: which version of the layout to write.
            out: the bytes so far.
            entry: where to put the JSON description of what is written, if that is wanted.
        """
        if self._hooks.pre_save is not None:
            self._call("pre_save", len(out), holder)
        try:
            entries: list[Entry] | None = None
            if entry is not None:
                entries = []
                entry.update(vmsd_name=self.name, version=version, fields=entries)
            for step in self.plan(version).steps:
                step.write(holder, out, entries)
            if self._subsections:
                self._write_subsections(holder, out, entry)
        except Exception:
            if self._hooks.post_save is not None:
                with suppress(Fault):  # what went wrong first is what matters
                    self._call("post_save", len(out), holder)
            raise
        if self._hooks.post_save is not None:
            self._call("post_save", len(out), holder)

    def _write_subsections(self, holder: object, out: bytearray, entry: Entry | None) -> None:
        written: list[Entry] = []
        for structure, target in self._needed(holder, out):
            name = structure.name.encode("ascii")
            out += bytes((SUBSECTION, len(name))) + name + _VERSION.pack(structure.version)
            detail: Entry | None = None if entry is None else {}
            try:
                structure.write(target, structure.version, out, detail)
            except Fault as fault:
                raise fault.under(structure.name) from fault.__cause__
            if detail is not None:
                written.append(detail)
        if entry is not None and written:
            entry["subsections"] = written

    def _needed(self, holder: object, out: bytearray | None = None) -> Iterator[tuple[Structure, object]]:
        """The subsections that are there, and what they are about; each is asked when the one before is written."""
        for name in self.access.present(holder, self._subsection_names):
            subsection = self._subsections[name]
            target = self.access.inner(holder, name)
            try:
                if subsection.needed is not None and not ask(subsection.needed, "needed", target):
                    continue
            except Fault as fault:
                fault.offset = None if out is None else len(out)
                raise fault.under(name) from fault.__cause__
            yield subsection.structure, target

    # ------------------------------------------------------------------ rest

    def show(self, holder: object, version: int) -> dict[str, Shown]:
        """Say all values as a decoder would print them. Calls no hook of this structure."""
        shown: dict[str, Shown] = {}
        for step in self.plan(version).steps:
            step.show(holder, shown)
        for structure, target in self._needed(holder):
            shown[structure.name] = structure.show(target, structure.version)
        return shown

    def _call(self, name: str, start: int, *arguments: object) -> None:
        """Call a hook; what it finds wrong gets the path, and the place where the structure begins."""
        try:
            returned = ask(getattr(self._hooks, name), name, *arguments)
            if returned is not None:
                raise Fault(
                    f"it returned {returned!r:.60}: a hook raises an error if something is wrong, and returns nothing"
                ).under(f"{name}()")
        except Fault as fault:
            raise fault.at(start) from fault.__cause__


class Nested(Codec):
    """A structure in the place of a field; it has no header on the wire: the local description says its version.

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
        if reader.skipping:
            target = None
        else:
            target = ask(self._fresh, "new") if current is None else current
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
        target = None if reader.skipping else ask(self._fresh, "new", holder)
        self._structure.read(reader, target, self._structure.version)
        return target

    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        start = len(out)
        detail: Entry | None = None if notes is None else {}
        target = value if self._kept else ask(self._fresh, "new", holder)
        self._structure.write(target, self._structure.version, out, detail)
        if notes is not None:
            notes.add(self.kind, len(out) - start, detail)

    def show(self, value: object, holder: object) -> Shown:
        out = bytearray()
        self.write(value, holder, out, None)
        return out.hex(" ")
