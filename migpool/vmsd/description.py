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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from migpool.device import Priority
from migpool.errors import DescriptionError
from migpool.vmsd.access import ATTRIBUTES
from migpool.vmsd.codec import Entry, Fault, NeedMore, Reader, Shown, Written, ask
from migpool.vmsd.consistency import check_order, numbered
from migpool.vmsd.declared import Declaration
from migpool.vmsd.scratch import scratch
from migpool.vmsd.steps import Field
from migpool.vmsd.structure import Hooks, Structure, Subsection


class Description:
    """What a device's (or a structure's, or a subsection's) state consists of.

    Arguments:
        name: its name in the stream's JSON; a subsection's begins with that of its parent, ``parent/part``.
        version: the version that is written, and the newest that can be read.
        minimum_version: the oldest version that can be read.
        fields: what it consists of, in the order of the wire.
        subsections: what may follow, each if its own ``needed`` says so.
        needed: called with the object at the source: whether the subsection is sent, or a device's whole section.
            Without it, it always is.
        priority: for a device: those of a higher one are saved and loaded first, whatever their order in the machine.
        early: for a device: it is saved while the machine still runs, before the memory, and loaded as it comes.
        pre_save: called with the object before it is saved.
        post_save: called with the object after it was saved, also if that failed.
        pre_load: called with the object before anything is loaded into it.
        post_load: called with the object and the version that was loaded, after its subsections.

    A hook that finds the state wrong raises :class:`DeviceError` with a line about it, and returns nothing in any case.
    Any other exception out of a hook, a condition or a count is told by its type and text. All of them go by the object
    that they are given: to measure a payload that is a copy.

    Raises:
        DescriptionError: the description contradicts itself; the message begins with the file and line of what is
            wrong.
    """

    structure: Structure
    needed: Callable[[Any], object] | None = None
    priority: Priority = Priority.DEFAULT
    early: bool = False
    line: str = ""

    def __init__(
        self,
        name: str,
        *,
        version: int = 0,
        minimum_version: int = 0,
        fields: Sequence[Field] = (),
        subsections: Sequence[Description] = (),
        needed: Callable[[Any], object] | None = None,
        priority: Priority = Priority.DEFAULT,
        early: bool = False,
        pre_save: Callable[[Any], None] | None = None,
        post_save: Callable[[Any], None] | None = None,
        pre_load: Callable[[Any], None] | None = None,
        post_load: Callable[[Any, int], None] | None = None,
    ) -> None:
        declared = Declaration("description", name)
        self.line = declared.line
        self._check(declared, name, version, minimum_version)
        declared.all_of("fields", fields, Field, "fields")
        declared.all_of("subsections", subsections, Description, "Descriptions")
        declared.expect("priority", priority, Priority, "a Priority")
        declared.truth("early", early)
        self._check_subsections(name, subsections)
        hooks = {"pre_save": pre_save, "post_save": post_save, "pre_load": pre_load}
        for hook, function in {"needed": needed, **hooks}.items():
            declared.calls(hook, function, "the object", optional=True)
        declared.calls("post_load", post_load, "the object", "the version", optional=True)
        self.needed = needed
        self.priority = priority
        self.early = early
        members = numbered(name, version, fields)
        check_order(name, fields, [(part.line, part.structure) for part in subsections])
        self.structure = Structure(
            name,
            version,
            minimum_version,
            members,
            [Subsection(part.structure, part.needed) for part in subsections],
            ATTRIBUTES,
            Hooks(pre_save, post_save, pre_load, post_load),
        )

    @classmethod
    def from_structure(cls, structure: Structure) -> Self:
        """A description around a structure that was made otherwise, from a stream's JSON."""
        made = cls.__new__(cls)
        made.structure = structure
        return made

    def _check(self, declared: Declaration, name: str, version: int, oldest: int) -> None:
        for argument, number in (("version", version), ("minimum_version", oldest)):
            declared.expect(argument, number, int, "a whole number")
        if not name.isascii() or not 0 < len(name) < 256:
            raise DescriptionError(f"{self.line}: a name has 1 to 255 ASCII characters, not {name!r:.60}")
        if not 0 <= version < 2**32:
            raise DescriptionError(f"{self.line}: the version of {name} is {version}, not from 0 to 2**32 - 1")
        if not 0 <= oldest <= version:
            raise DescriptionError(f"{self.line}: minimum_version {oldest} of {name} is not from 0 to its {version}")

    def _check_subsections(self, name: str, subsections: Sequence[Description]) -> None:
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

    def is_needed(self, state: object) -> bool:
        """Whether there is anything to save: what ``needed`` says.

        Raises:
            DeviceError: it failed.
        """
        with self._faults():
            return self.needed is None or bool(ask(self.needed, "needed", state))

    def check_version(self, version: int) -> None:
        """Refuse a version that this description cannot read.

        Raises:
            DeviceError: it is newer than ``version`` or older than ``minimum_version``.
        """
        with self._faults():
            self.structure.accept(version)

    def save(self, state: object, descriptors: list[int] | None = None) -> bytes:
        """Write ``state``.

        Arguments:
            state: what to save.
            descriptors: gets the descriptors that must be passed beside the bytes, in their order; without it, the
                bytes have their numbers.

        Raises:
            DeviceError: a value does not fit its field, or a hook says so; names the field.
        """
        out = bytearray() if descriptors is None else Written()
        self._write(state, out, None)
        if isinstance(out, Written) and descriptors is not None:
            descriptors += out.passed
        return bytes(out)

    def save_described(self, state: object) -> tuple[bytes, Entry]:
        """Write ``state``, and describe what was written as a stream's JSON does."""
        entry: Entry = {}
        out = bytearray()
        self._write(state, out, entry)
        return bytes(out), entry

    def describe(self, state: object) -> Entry:
        """Describe what :meth:`save` would write: ``vmsd_name``, ``version``, ``fields``, perhaps ``subsections``."""
        return self.save_described(state)[1]

    def _write(self, state: object, out: bytearray, entry: Entry | None) -> None:
        with self._faults():
            self.structure.write(state, self.version, out, entry)

    def load(
        self,
        state: object,
        data: bytes | memoryview,
        version: int | None = None,
        descriptors: Iterable[int] | None = None,
    ) -> None:
        """Read a whole payload into ``state``.

        Arguments:
            state: what to load into; with a description from a stream's JSON, a ``dict``.
            data: the payload, all of it.
            version: the version in the section's header; the description's own, if not given.
            descriptors: those that came beside the bytes, in their order; without it, the bytes have their numbers.

        Raises:
            DeviceError: the payload is too short, too long or damaged, or has a version that cannot be read. ``state``
                may hold a part of it then.
        """
        version = self.version if version is None else version
        reader = Reader(data, complete=True, passed=None if descriptors is None else iter(descriptors))
        with self._faults():
            self.structure.load(reader, state, version)

    def measure(self, data: bytes | memoryview, state: object, version: int | None = None) -> int | None:
        """Say how long the payload at the start of ``data`` is.

        Where that does not follow from the bytes alone, they are loaded into a copy of ``state``, hooks and all, but
        without the last one: ``post_load`` of the description itself. A class says by ``__reduce__`` how it is copied.

        Arguments:
            data: the bytes that have come so far.
            state: the object that will be loaded into; it is not changed.
            version: the version in the section's header; the description's own, if not given.

        Returns:
            The length in bytes, or ``None`` if more must come. If subsections are possible, that is so until the byte
            behind the payload has come.

        Raises:
            DeviceError: the bytes are no such payload, or it cannot be measured since there can be no copy.
        """
        version = self.version if version is None else version
        skipping = self.structure.static
        reader = Reader(data, complete=False, skipping=skipping)
        try:
            with self._faults():
                self.structure.accept(version)
                self.structure.read_parts(reader, state if skipping else scratch(state), version)
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
