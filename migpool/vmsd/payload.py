"""The bytes of one section while they are read: a position, what is left, and how a fault says where it was found.

A :class:`Fault` carries only what was expected and the byte offset; every level it passes on its way up adds its own
name, so that the finished message names the whole path and the normal case pays nothing for it.
"""

from __future__ import annotations

from struct import Struct
from typing import Self

from migpool.errors import DeviceError

SUBSECTION = 0x05
_VERSION = Struct(">I")


class NeedMore(Exception):
    """The bytes end before the payload does, and more may still come. Raised only while a payload is measured."""


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
        return DeviceError(f"{where}: {self.expected}")


class Reader:
    """A payload and a position in it.

    Arguments:
        data: the bytes; as a view they must be of format ``B``.
        complete: these are all the bytes of the payload; otherwise it is being measured and more may come.
        skipping: no values are wanted: what has a fixed size is stepped over.
    """

    __slots__ = ("_empty", "complete", "data", "end", "pos", "skipping")

    def __init__(self, data: bytes | memoryview, *, complete: bool, skipping: bool = False) -> None:
        self.data = data
        self.pos = 0
        self.end = len(data)
        self.complete = complete
        self.skipping = skipping
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
