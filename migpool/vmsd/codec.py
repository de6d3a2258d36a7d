"""What every part of a description can do: read itself from bytes, write itself, and show a value.

Declared descriptions and those that come with a stream compile to the same parts; there is no other codec. A part
knows its wire form only; where a value lives in an object is the concern of :mod:`~migpool.vmsd.access`.

A :class:`Fault` carries only what was expected and the byte offset; every level it passes on its way up adds its own
name, so that the finished message names the whole path and the normal case pays nothing for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from struct import Struct
from typing import Self, TypeAlias, TypeVar

from migpool.errors import DeviceError, MigpoolError

SUBSECTION = 0x05
_VERSION = Struct(">I")
T = TypeVar("T")

Entry: TypeAlias = dict[str, object]
"""One JSON object of a stream's description."""

Shown: TypeAlias = "str | bool | list[Shown] | dict[str, Shown]"
"""A value as a decoder prints it: whole numbers as ``0x0000002a``, raw bytes as ``2a 00``."""


class NeedMore(Exception):
    """The bytes end before the payload does, and more may still come. Raised only while a payload is measured."""


def one_line(text: str) -> str:
    """The text without line breaks, which the names and values of others can bring into a message."""
    return " ".join(text.split())


class Fault(Exception):
    """Bytes or an object that do not fit their description; becomes a :class:`DeviceError` at the outermost level.

    Arguments:
        expected: what would have been right, and what was found instead.
        offset: where in the payload, in bytes; ``None`` while saving.
    """

    def __init__(self, expected: str, offset: int | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.offset = offset
        self._path: list[str] = []

    def under(self, name: str) -> Self:
        """Say that this happened inside of ``name`` (a field, or ``[index]``); returns itself."""
        self._path.append(name)
        return self

    def at(self, offset: int) -> Self:
        """Say at which byte, unless that is known already; returns itself."""
        if self.offset is None:
            self.offset = offset
        return self

    def as_device_error(self, description: str) -> DeviceError:
        """The one line for the user: description, field path, byte offset, what was expected."""
        path = ""
        for part in reversed(self._path):
            path += part if not path or part.startswith("[") else f".{part}"
        where = f"{description}: field {path}" if path else description
        if self.offset is not None:
            where += f" at byte {self.offset} of the payload"
        return DeviceError(one_line(f"{where}: {self.expected}"))


def told(error: Exception, what: str) -> Fault:
    """What to raise for an exception out of a function that the author of a description gave.

    Arguments:
        error: the exception.
        what: what the function is called in a description; the :class:`Fault` names it.
    """
    if isinstance(error, MigpoolError) and not isinstance(error, DeviceError):
        raise error
    text = str(error)
    if not isinstance(error, DeviceError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Fault(text).under(f"{what}()")


def ask(function: Callable[..., object], what: str, *arguments: object) -> object:
    """Call a function that the author of a description gave: a condition, a count or a hook; see :func:`told`."""
    try:
        return function(*arguments)
    except Exception as error:
        raise told(error, what) from error


class Reader:
    """A payload and a position in it.

    Arguments:
        data: the bytes; as a view they must be of format ``B``.
        complete: these are all the bytes of the payload; otherwise it is being measured and more may come.
        skipping: no values are wanted and nobody may be called: what has a fixed size is stepped over.
        passed: the descriptors that came beside the bytes, in their order; ``None`` if the bytes have their numbers.
    """

    __slots__ = ("_empty", "complete", "data", "end", "passed", "pos", "skipping")

    def __init__(
        self,
        data: bytes | memoryview,
        *,
        complete: bool,
        skipping: bool = False,
        passed: Iterator[int] | None = None,
    ) -> None:
        self.data = data
        self.pos = 0
        self.end = len(data)
        self.complete = complete
        self.skipping = skipping
        self.passed = passed
        self._empty = len(data) + 65536

    @property
    def left(self) -> int:
        """How many bytes have not been read yet."""
        return self.end - self.pos

    def claim(self, size: int) -> int:
        """Step over ``size`` bytes and return where they begin; they are there, or this raises."""
        start = self.pos
        if size > self.end - start:
            raise self.too_short(size)
        self.pos = start + size
        return start

    def too_short(self, size: int, what: str = "bytes") -> Fault | NeedMore:
        """The exception for ``size`` bytes that are not there."""
        if not self.complete:
            return NeedMore()
        return Fault(f"expected {size} {what}, {self.left} bytes are left", self.pos)

    def allow(self, count: int, least: int) -> None:
        """Check a count that came from outside against the bytes that are there, before anything is allocated for it.

        Arguments:
            count: how many elements are announced.
            least: the fewest bytes one element can take. Of those that can take none, a payload may have 65536 more
                than it has bytes.
        """
        if not least:
            self._empty -= count
            if self._empty < 0:
                raise Fault(f"expected fewer than {count} elements that may be empty", self.pos)
        elif count * least > self.left:
            if not self.complete:
                raise NeedMore
            raise Fault(
                f"expected {count} elements of at least {least} bytes each, {self.left} bytes are left", self.pos
            )

    def subsection(self, parent: bytes, known: bool) -> tuple[str, int] | None:
        """Look whether a subsection of ``parent`` begins here; if so step over its header.

        It does if there is a 0x05 and then a counted name that is longer than the parent's and begins with it;
        otherwise the bytes belong to whatever follows.

        Arguments:
            parent: the name of the description that has just been read.
            known: the parent has subsections, so at the end of the bytes that have come so far it must be waited for.

        Returns:
            The subsection's name and version, or ``None``.
        """
        data, pos, left = self.data, self.pos, self.end - self.pos
        if left and data[pos] != SUBSECTION:
            return None
        if left < 2:
            if self.complete or not (known or left):
                return None
            raise NeedMore
        length = data[pos + 1]
        if length <= len(parent):
            return None
        name = bytes(data[pos + 2 : pos + 2 + length])
        if name[: len(parent)] != parent[: len(name)]:
            return None
        if left < 2 + length + 4:
            if self.complete and len(name) < len(parent):
                return None
            raise self.too_short(2 + length + 4, "bytes of a subsection's header")
        self.pos = pos + 2 + length + 4
        text = name.decode("ascii", "backslashreplace")
        return text, _VERSION.unpack_from(data, pos + 2 + length)[0]


class Written(bytearray):
    """Bytes that are written, with the descriptors that are to be passed beside them."""

    def __init__(self) -> None:
        self.passed: list[int] = []


class Notes:
    """Where a part that writes itself also leaves its entry for the JSON description.

    Arguments:
        entries: the list that the entries go to.
        label: the field's name in the JSON.
        compress: all elements of an array are described by their first one.
        place: what stands behind the name: ``array_len`` or ``index``, or nothing.
    """

    __slots__ = ("compress", "entries", "label", "place")

    def __init__(self, entries: list[Entry], label: str, compress: bool, place: Mapping[str, object]) -> None:
        self.entries = entries
        self.label = label
        self.compress = compress
        self.place = place

    def add(self, kind: str, size: int, detail: Mapping[str, object] | None = None) -> None:
        """Add one entry: the type's name, what stands inside of it, and how many bytes were written."""
        entry: Entry = {"name": self.label, **self.place, "type": kind}
        if detail is not None:
            entry.update(detail)
        entry["size"] = size
        self.entries.append(entry)

    def element(self, index: int, length: int) -> Notes | None:
        """The notes for one element of an array of ``length``; ``None`` if an earlier element speaks for it.

        Real streams give every element that cannot be compressed its index, except the last one.
        """
        if length - index < 2:
            return self if length < 2 or not self.compress else None
        if not self.compress:
            return Notes(self.entries, self.label, False, {"index": index})
        return Notes(self.entries, self.label, True, {"array_len": length}) if index == 0 else None


class Codec(ABC):
    """One part of a description.

    Attributes:
        kind: the type's name in the JSON description.
        size: how many bytes it always takes, or ``None``.
        least: the fewest bytes it can take.
        static: its length follows from the bytes alone, without any object: it can be read while skipping.
        compressible: an array of it may be described by its first element.
        resumes: reading wants the value that the object holds already.
        carries: its bytes are a value of the object.
    """

    kind: str
    size: int | None
    least: int
    static: bool = True
    compressible: bool = True
    resumes: bool = False
    carries: bool = True

    @abstractmethod
    def read(self, reader: Reader, holder: object, current: object) -> object:
        """Read one value.

        Arguments:
            reader: the bytes; on return it stands behind the value.
            holder: the object that the value will belong to; counts and conditions look at it.
            current: what it holds in this place now, or ``None``.
        """

    @abstractmethod
    def write(self, value: object, holder: object, out: bytearray, notes: Notes | None) -> None:
        """Append the bytes of ``value`` to ``out``, and its entry to ``notes``."""

    @abstractmethod
    def show(self, value: object, holder: object) -> Shown:
        """Say ``value`` as a decoder would print it."""


def read_each(reader: Reader, read: Callable[[T], object], given: Iterable[T], first: int = 0) -> list[object]:
    """Read one value for each of ``given``; a fault says at which index, counted from ``first``."""
    values: list[object] = []
    try:
        values.extend(map(read, given))
    except Fault as fault:
        raise fault.at(reader.pos).under(f"[{first + len(values)}]") from fault.__cause__
    return values


def write_each(values: Iterable[T], write: Callable[[int, T], None]) -> None:
    """Call ``write`` with each value and its index; a fault says at which index."""
    for index, value in enumerate(values):
        try:
            write(index, value)
        except Fault as fault:
            raise fault.under(f"[{index}]") from fault.__cause__
