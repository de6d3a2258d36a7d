"""The kinds of fields that a :class:`~migpool.vmsd.description.Description` is made of.

What they have in common:

* ``name``: the field's name in the stream's JSON, and that of the attribute; ``attribute`` sets another, perhaps a
  dotted path.
* ``length``: makes it an array (a list in Python): a number, or the name of the attribute that holds the number. If
  that is a field too it must come earlier. A function of the object will also do.
* ``since``: the version of the description in which the field appeared; it is there if the section's version is that
  or newer. ``when`` is called with the object and the section's version and decides alone, ``since`` or not.

Whole numbers are big-endian. Where JSON names are given below they are those of QEMU's streams.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from migpool.errors import DescriptionError
from migpool.vmsd.arrays import Array, CountedBytes, Length, PointerArray, Queue, Tree
from migpool.vmsd.cells import SCALARS, Blank, Cell, Check, bitmap_cell, bytes_cell
from migpool.vmsd.codec import Codec, Fault
from migpool.vmsd.steps import Condition, Field, declared_at
from migpool.vmsd.structure import Nested, Temporary

if TYPE_CHECKING:
    from migpool.vmsd.description import Description


class Placing(TypedDict, total=False):
    """What a declaration of any kind may say of its place; the top of this file says what each means."""

    since: int
    when: Condition | None
    attribute: str | None


def _placed(
    name: str,
    codec: Codec,
    line: str,
    *,
    check: Callable[[object, object], None] | None = None,
    count: str | None = None,
    **placing: Unpack[Placing],
) -> Field:
    """A field in its place; its attribute is called as it is, unless the declaration says otherwise."""
    attribute = placing.get("attribute")
    since, when = placing.get("since", 0), placing.get("when")
    return Field(name, codec, line, name if attribute is None else attribute, since, when, check, count)


def _with_length(line: str, name: str, codec: Codec, length: Length | None) -> tuple[Codec, str | None]:
    """The codec with its length around it, and the attribute it is counted by."""
    if length is None:
        return codec, None
    _check_elements(line, name, codec, length)
    return Array(codec, length), length if isinstance(length, str) else None


def _check_elements(line: str, name: str, codec: Codec, length: Length) -> None:
    """Refuse an array that cannot be, or whose subsections could not be told apart.

    Raises:
        DescriptionError: the length is negative, or an element may have no bytes before its subsections: nothing
            would then say to which element a subsection belongs.
    """
    if isinstance(length, int) and length < 0:
        raise DescriptionError(f"{line}: field {name}: its length is {length}")
    if isinstance(codec, Nested) and not codec.least and codec.structure.subsections:
        raise DescriptionError(
            f"{line}: field {name}: an array of {codec.structure.name}, which has subsections, but no bytes that are "
            f"always before them"
        )


class Scalar:
    """A kind of plain value; called to declare a field of it."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __call__(self, name: str, *, length: Length | None = None, **placing: Unpack[Placing]) -> Field:
        """Declare a field; see the module for the arguments."""
        line = declared_at(sys._getframe(1))
        codec, count = _with_length(line, name, self.cell, length)
        return _placed(name, codec, line, count=count, **placing)


boolean: Final = Scalar(SCALARS["bool"])
"""True or False; one byte, 0 or 1."""
i8: Final = Scalar(SCALARS["int8"])
i16: Final = Scalar(SCALARS["int16"])
i32: Final = Scalar(SCALARS["int32"])
i64: Final = Scalar(SCALARS["int64"])
u8: Final = Scalar(SCALARS["uint8"])
u16: Final = Scalar(SCALARS["uint16"])
u32: Final = Scalar(SCALARS["uint32"])
u64: Final = Scalar(SCALARS["uint64"])
timer: Final = Scalar(SCALARS["timer"])
"""When a timer expires, in nanoseconds, or ``None`` while it is off (all bits one)."""
double: Final = Scalar(SCALARS["CPU_Double_U"])
"""A float of 64 bits: the upper half first, then the lower."""


def equal(kind: Scalar, name: str, **placing: Unpack[Placing]) -> Field:
    """A number that must be the same at both ends; what comes is compared with what the object has.

    Arguments:
        kind: ``u8``, ``u16``, ``u32``, ``u64`` or ``i32``.
    """
    line = declared_at(sys._getframe(1))
    json_kind = "int64 equal" if kind is u64 else f"{kind.cell.kind} equal"
    if json_kind not in SCALARS:
        raise DescriptionError(f"{line}: field {name}: a field that must be equal is u8, u16, u32, u64 or i32")
    return _placed(name, SCALARS[json_kind], line, check=_same, **placing)


def not_above(name: str, **placing: Unpack[Placing]) -> Field:
    """A signed number of 32 bits, not negative and not above the one that the object has (``int32 le``).

    Real descriptions have it for versions of a part inside of a structure.
    """
    line = declared_at(sys._getframe(1))
    return _placed(name, SCALARS["int32 le"], line, check=_at_most, **placing)


def _same(value: object, current: object) -> None:
    if value != current:
        raise Fault(f"expected {current}, as it is at this end, the payload has {value}")


def _at_most(value: object, current: object) -> None:
    if not isinstance(current, int) or not isinstance(value, int) or not 0 <= value <= current:
        raise Fault(f"expected 0 to {current}, the payload has {value}")


def bitmap(name: str, bits: int, **placing: Unpack[Placing]) -> Field:
    """A bitmap, as a whole number whose bit ``n`` is bit ``n`` of the map.

    Arguments:
        bits: how many; on the wire it is rounded up to words of 64, the lowest word first.
    """
    line = declared_at(sys._getframe(1))
    if bits < 1:
        raise DescriptionError(f"{line}: field {name}: a bitmap of {bits} bits")
    return _placed(name, bitmap_cell(bits), line, **placing)


def buffer(name: str, size: Length, *, kind: str = "buffer", **placing: Unpack[Placing]) -> Field:
    """Raw bytes.

    Arguments:
        size: how many; a number, or as for ``length``.
        kind: the type's name in the JSON, for bytes whose format the author knows.
    """
    line = declared_at(sys._getframe(1))
    if isinstance(size, int) and size < 0:
        raise DescriptionError(f"{line}: field {name}: its size is {size}")
    codec = bytes_cell(size, kind) if isinstance(size, int) else CountedBytes(size, kind)
    count = size if isinstance(size, str) else None
    return _placed(name, codec, line, count=count, **placing)


def validate(name: str, condition: Condition) -> Field:
    """No bytes at all, but a check: saving and loading fail unless ``condition`` (of the object) is true here.

    It sees the fields before it, so it can guard a count before the array that uses it.
    """
    line = declared_at(sys._getframe(1))
    return Field(name, Check(condition), line, "")


def unused(size: int, *, since: int = 0, when: Condition | None = None) -> Field:
    """Bytes that mean nothing (any more): zeros when written, skipped when read. They have no attribute."""
    line = declared_at(sys._getframe(1))
    if size < 1:
        raise DescriptionError(f"{line}: {size} unused bytes")
    return Field("unused", Blank(size), line, "", since, when)


def struct(
    name: str,
    description: Description,
    *,
    length: Length | None = None,
    new: Callable[[], object] = SimpleNamespace,
    **placing: Unpack[Placing],
) -> Field:
    """A structure in this place, without a header; also one behind a pointer that is never null.

    Loading goes into the object (or the list of objects) that is there already, and into new ones otherwise.

    Arguments:
        description: what it consists of; its own version says which layout.
        new: makes an object to load into.
    """
    line = declared_at(sys._getframe(1))
    codec, count = _with_length(line, name, Nested(description.structure, new), length)
    return _placed(name, codec, line, count=count, **placing)


def vstruct(
    name: str,
    description: Description,
    *,
    version: int,
    length: Length | None = None,
    new: Callable[[], object] = SimpleNamespace,
    **placing: Unpack[Placing],
) -> Field:
    """A structure in the layout of ``version``, whatever its description's newest is. Otherwise like :func:`struct`."""
    line = declared_at(sys._getframe(1))
    if not description.minimum_version <= version <= description.version:
        raise DescriptionError(
            f"{line}: field {name}: {description.name} has versions {description.minimum_version} to "
            f"{description.version}, not {version}"
        )
    codec, count = _with_length(line, name, Nested(description.structure, new, version), length)
    return _placed(name, codec, line, count=count, **placing)


def pointers(
    name: str,
    target: Description | Scalar,
    *,
    length: Length,
    new: Callable[[], object] = SimpleNamespace,
    **placing: Unpack[Placing],
) -> Field:
    """An array of pointers, where ``None`` is a null pointer: the byte 0x30 in its place.

    The bytes do not say which ones are null; the object that is loaded into has ``None`` in the same places.

    Arguments:
        target: what they point to.
    """
    line = declared_at(sys._getframe(1))
    element: Codec = target.cell if isinstance(target, Scalar) else Nested(target.structure, new)
    _check_elements(line, name, element, length)
    count = length if isinstance(length, str) else None
    return _placed(name, PointerArray(element, length), line, count=count, **placing)


def queue(
    name: str, description: Description, *, new: Callable[[], object] = SimpleNamespace, **placing: Unpack[Placing]
) -> Field:
    """A tail queue: 01 before each element, 00 at the end. A list of objects, replaced by a new one when loaded."""
    codec = Queue(Nested(description.structure, new), "qtailq")
    return _placed(name, codec, declared_at(sys._getframe(1)), **placing)


def linked_list(
    name: str, description: Description, *, new: Callable[[], object] = SimpleNamespace, **placing: Unpack[Placing]
) -> Field:
    """A list; on the wire as a :func:`queue`, in the JSON a ``qlist``."""
    codec = Queue(Nested(description.structure, new), "qlist")
    return _placed(name, codec, declared_at(sys._getframe(1)), **placing)


def tree(
    name: str,
    value: Description,
    *,
    key: Description | None = None,
    new: Callable[[], object] = SimpleNamespace,
    new_key: Callable[[], object] = SimpleNamespace,
    **placing: Unpack[Placing],
) -> Field:
    """A tree: the number of nodes, 01 before each, 00 at the end.

    Arguments:
        key: what the keys are; then the attribute is a list of pairs (key, value). Without it the keys are numbers of
            64 bits, and it is a ``dict``.
    """
    line = declared_at(sys._getframe(1))
    codec = Tree(None if key is None else Nested(key.structure, new_key), Nested(value.structure, new))
    return _placed(name, codec, line, **placing)


def temporary(
    description: Description,
    *,
    new: Callable[..., object],
    name: str = "tmp",
    since: int = 0,
    when: Condition | None = None,
) -> Field:
    """Values computed for the wire alone, from an object that is made for it each time.

    Arguments:
        description: the values; its ``pre_save`` computes them, its ``post_load`` takes them apart again.
        new: called with the object that is saved or loaded, which it should keep a reference to.
    """
    line = declared_at(sys._getframe(1))
    return Field(name, Temporary(description.structure, new), line, "", since, when)
