"""A description of device state, declared in Python like a table.

::

    TIMER = Description(
        "clock_timer", version=1,
        fields=[
            u8("mode"),
            u64("period"),
            timer("expires"),
        ],
    )

    CLOCK = Description(
        "clock", version=3, minimum_version=2,
        fields=[
            u32("control"),
            u32("status", since=3),
            u8("used"),
            struct("timers", TIMER, length="used", new=ClockTimer),
            unused(4),
        ],
        subsections=[ALARM],
    )

The names are those of attributes of the object that is saved. What stands in the stream, byte for byte, is what QEMU
has for the same fields, so a destination of either kind can read it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

from migpool.errors import DescriptionError
from migpool.vmsd.access import ATTRIBUTES, Overlay
from migpool.vmsd.arrays import Array, PointerArray
from migpool.vmsd.cells import Blank
from migpool.vmsd.codec import Entry, Fault, NeedMore, Reader, Shown
from migpool.vmsd.steps import Field, declared_at
from migpool.vmsd.structure import Hooks, Nested, Structure, Subsection


class Description:
    """What a device's (or a structure's, or a subsection's) state consists of.

    Arguments:
        name: its name in the stream's JSON; a subsection's begins with that of its parent, ``parent/part``.
        version: the version that is written, and the newest that can be read.
        minimum_version: the oldest version that can be read; the newest alone, if not given.
        fields: what it consists of, in the order of the wire.
        subsections: what may follow, each if its own ``needed`` says so.
        needed: for a subsection: called with the object at the source; without it, it is always sent.
        pre_save: called with the object before it is saved.
        post_save: called with the object after it was saved, also if that failed.
        pre_load: called with the object before anything is loaded into it.
        post_load: called with the object and the version that was loaded, after its subsections.

    A hook or condition that finds the state wrong raises :class:`DeviceError`; an ``ArithmeticError``, ``LookupError``
    or ``ValueError`` out of a hook is taken for the same.

    Raises:
        DescriptionError: the description contradicts itself; the message begins with the file and line of what is
            wrong.
    """

    structure: Structure
    needed: Callable[..., object] | None
    line: str

    def __init__(
        self,
        name: str,
        *,
        version: int = 1,
        minimum_version: int | None = None,
        fields: Sequence[Field] = (),
        subsections: Sequence[Description] = (),
        needed: Callable[..., object] | None = None,
        pre_save: Callable[..., object] | None = None,
        post_save: Callable[..., object] | None = None,
        pre_load: Callable[..., object] | None = None,
        post_load: Callable[..., object] | None = None,
    ) -> None:
        self.line = declared_at(sys._getframe(1))
        oldest = version if minimum_version is None else minimum_version
        self._check(name, version, oldest, subsections)
        self.needed = needed
        members = _numbered(name, version, fields)
        _check_order(name, fields, [(part.line, part.structure) for part in subsections])
        self.structure = Structure(
            name,
            version,
            oldest,
            members,
            [Subsection(part.structure, part.needed) for part in subsections],
            ATTRIBUTES,
            Hooks(pre_save, post_save, pre_load, post_load),
        )

    @classmethod
    def from_structure(cls, structure: Structure) -> Self:
        """A description around a structure that was made otherwise, from a stream's JSON."""
        made = cls.__new__(cls)
        made.line = ""
        made.needed = None
        made.structure = structure
        return made

    def _check(self, name: str, version: int, oldest: int, subsections: Sequence[Description]) -> None:
        if not name.isascii() or not 0 < len(name) < 256:
            raise DescriptionError(f"{self.line}: a name has 1 to 255 ASCII characters, not {name!r:.60}")
        if not 0 <= version < 2**32:
            raise DescriptionError(f"{self.line}: the version of {name} is {version}, not from 0 to 2**32 - 1")
        if not 0 <= oldest <= version:
            raise DescriptionError(f"{self.line}: minimum_version {oldest} of {name} is not from 0 to its {version}")
        seen: set[str] = set()
        for part in subsections:
            if not part.name.startswith(name) or part.name == name:
                raise DescriptionError(
                    f"{part.line}: the name of subsection {part.name} must begin with its parent's and be longer: "
                    f"{name}/..."
                )
            if part.name in seen:
                raise DescriptionError(f"{part.line}: {name} has the subsection {part.name} twice")
            seen.add(part.name)

    @property
    def name(self) -> str:
        """Its name in the stream."""
        return self.structure.name

    @property
    def version(self) -> int:
        """The version that is written."""
        return self.structure.version

    @property
    def minimum_version(self) -> int:
        """The oldest version that can be read."""
        return self.structure.minimum_version

    def check_version(self, version: int) -> None:
        """Refuse a version that this description cannot read.

        Raises:
            DeviceError: it is newer than ``version`` or older than ``minimum_version``.
        """
        with self._faults():
            self.structure.accept(version)

    def save(self, state: object) -> bytes:
        """Write ``state``.

        Raises:
            DeviceError: a value does not fit its field, or a hook says so; names the field.
        """
        return self._save(state, None)

    def save_described(self, state: object) -> tuple[bytes, Entry]:
        """Write ``state``, and describe what was written as a stream's JSON does."""
        entry: Entry = {}
        return self._save(state, entry), entry

    def describe(self, state: object) -> Entry:
        """Describe what :meth:`save` would write: ``vmsd_name``, ``version``, ``fields``, perhaps ``subsections``."""
        return self.save_described(state)[1]

    def _save(self, state: object, entry: Entry | None) -> bytes:
        out = bytearray()
        with self._faults():
            self.structure.write(state, self.version, out, entry)
        return bytes(out)

    def load(self, state: object, data: bytes | memoryview, version: int | None = None) -> None:
        """Read a whole payload into ``state``.

        Arguments:
            state: what to load into; with a description from a stream's JSON, a ``dict``.
            data: the payload, all of it.
            version: the version in the section's header; the description's own, if not given.

        Raises:
            DeviceError: the payload is too short, too long or damaged, or has a version that cannot be read. ``state``
                may hold a part of it then.
        """
        version = self.version if version is None else version
        reader = Reader(data, complete=True)
        with self._faults():
            self.structure.accept(version)
            self.structure.read(reader, state, version)
            if reader.left:
                raise Fault(f"expected the end of the payload, {reader.left} bytes follow", reader.pos)

    def measure(self, data: bytes | memoryview, state: object, version: int | None = None) -> int | None:
        """Say how long the payload at the start of ``data`` is.

        Conditions and counts see the values that have come and, for the rest, ``state``; hooks are not called, so
        neither may depend on what a hook computes from values of the same payload.

        Arguments:
            data: the bytes that have come so far.
            state: the object that will be loaded into; it is not changed.
            version: the version in the section's header; the description's own, if not given.

        Returns:
            The length in bytes, or ``None`` if more must come. If subsections are possible, that is so until the byte
            behind the payload has come.

        Raises:
            DeviceError: the bytes are no such payload.
        """
        version = self.version if version is None else version
        reader = Reader(data, complete=False, skipping=self.structure.static)
        try:
            with self._faults():
                self.structure.accept(version)
                self.structure.read(reader, {} if isinstance(state, dict) else Overlay(state), version)
        except NeedMore:
            return None
        return reader.pos

    def show(self, state: object) -> Mapping[str, Shown]:
        """All values of ``state`` as a decoder prints them.

        Raises:
            DeviceError: a value does not fit its field.
        """
        with self._faults():
            return self.structure.show(state, self.version)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Make an error for the user of a fault."""
        try:
            yield
        except Fault as fault:
            raise fault.as_device_error(self.name) from fault.__cause__

    def __repr__(self) -> str:
        return f"Description({self.name!r}, version={self.version})"


def _numbered(owner: str, version: int, fields: Sequence[Field]) -> list[Field]:
    """Check the fields of a description among each other, and number those of one name.

    Names that occur more than once, which only conditional and unused fields may, get their number in the JSON.

    Arguments:
        owner: the description's name.
        version: the description's version.
        fields: its fields.

    Raises:
        DescriptionError: a name twice, a version too high, or a count that comes after what it counts.
    """
    occurrences = Counter(field.name for field in fields)
    numbers: Counter[str] = Counter()
    made: list[Field] = []
    for place, field in enumerate(fields):
        _check_field(owner, version, field, fields[:place], fields[place + 1 :])
        made.append(replace(field, number=numbers[field.name]) if occurrences[field.name] > 1 else field)
        numbers[field.name] += 1
    return made


def _check_order(owner: str, fields: Sequence[Field], subsections: Sequence[tuple[str, Structure]]) -> None:
    """Refuse a subsection that whatever ends right before it would take for its own.

    After each structure the reader looks for subsections whose name begins with that structure's. So neither a
    structure in the last field nor an earlier subsection may have a name that a later subsection's begins with.

    Arguments:
        owner: the description's name.
        fields: its fields.
        subsections: the place and structure of each of its subsections, in their order.

    Raises:
        DescriptionError: there is such a pair.
    """
    before = _last_names(fields)
    for line, structure in subsections:
        for name in before:
            if structure.name.startswith(name) and structure.name != name:
                raise DescriptionError(
                    f"{line}: subsection {structure.name} of {owner} would be taken for one of {name}, which can end "
                    f"right before it; rename one of them"
                )
        before |= _names_at_end(structure)


def _names_at_end(structure: Structure) -> set[str]:
    """The structure's name, and those of structures inside of it that can end where it ends."""
    names = {structure.name} | _last_names(structure.fields)
    for part in structure.subsections:
        names |= _names_at_end(part.structure)
    return names


def _last_names(fields: Sequence[Field]) -> set[str]:
    """The names of structures that can end at the end of a row of fields, some of which are not always there."""
    names: set[str] = set()
    for field in reversed(fields):
        codec = field.codec
        element = codec.element if isinstance(codec, Array | PointerArray) else codec
        if isinstance(element, Nested):
            names |= _names_at_end(element.structure)
        if field.when is None and codec.least:
            break
    return names


def _check_field(owner: str, version: int, field: Field, before: Sequence[Field], after: Sequence[Field]) -> None:
    what = f"{field.line}: field {field.name} of {owner}"
    if not 0 <= field.since <= version:
        raise DescriptionError(f"{what}: it appears in version {field.since}, the description ends with {version}")
    if field.attribute and not all(part.isidentifier() for part in field.attribute.split(".")):
        raise DescriptionError(f"{what}: {field.attribute!r} is no attribute; give it one with attribute=")
    for other in before:
        if other.name == field.name and not (_repeatable(other) and _repeatable(field)):
            raise DescriptionError(f"{what}: the name is taken by {other.line}; only conditional fields may share one")
    counted = field.count is not None and not any(other.attribute == field.count for other in before)
    if counted and any(other.attribute == field.count for other in after):
        raise DescriptionError(f"{what}: its count {field.count} comes after it; it must be read before")


def _repeatable(field: Field) -> bool:
    return field.when is not None or isinstance(field.codec, Blank)
