"""The kinds of fields that a :class:`~migpool.vmsd.description.Description` is made of.

What they have in common:

* ``name``: the field's name in the stream's JSON, and that of the attribute; ``attribute`` sets another, perhaps a
  dotted path.
* ``length``: makes it an array (a list in Python): a number, or the name of the attribute that holds the number. If
  that is a field too it must come earlier. A function of the object will also do.
* ``start``: the array is only a part of the list, which begins at this index; the rest is neither saved nor loaded.
* ``since``: the version of the description in which the field appeared; it is there if the section's version is that
  or newer. ``when`` is called with the object and the section's version and decides alone, ``since`` or not.

Whole numbers are big-endian. Where JSON names are given below they are those of QEMU's streams. ``docs/vmsd-macros.md``
says which of these functions stands for which macro of QEMU.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Unpack

from migpool.vmsd.arrays import AllocatedArray, Length, PointerArray
from migpool.vmsd.cells import OFF, POINTED_TIMER, SCALARS, Blank, Cell, bitmap_cell, bytes_cell
from migpool.vmsd.codec import Codec, Fault
from migpool.vmsd.declared import Declaration, Placing
from migpool.vmsd.lists import Queue, Tree
from migpool.vmsd.steps import Condition, Field
from migpool.vmsd.structure import Temporary
from migpool.vmsd.varying import ByteArray, Counted, Descriptor

if TYPE_CHECKING:
    from migpool.vmsd.description import Description

__all__ = [
    "OFF",
    "Scalar",
    "bitmap",
    "boolean",
    "buffer",
    "byte_array",
    "descriptor",
    "double",
    "equal",
    "i8",
    "i16",
    "i32",
    "i64",
    "linked_list",
    "not_above",
    "pointers",
    "queue",
    "struct",
    "temporary",
    "timer",
    "tree",
    "u8",
    "u16",
    "u32",
    "u64",
    "unused",
    "validate",
    "vstruct",
]


class Scalar:
    """A kind of plain value; called to declare a field of it."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __repr__(self) -> str:
        return f"the kind {self.cell.kind}"

    def __call__(
        self, name: str, *, length: Length | None = None, start: int | None = None, **placing: Unpack[Placing]
    ) -> Field:
        """Declare a field; see the module for the arguments."""
        declared = Declaration("field", name)
        return declared.field(declared.array(self.cell, length, start), placing, count=length)


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
"""When a timer expires, in nanoseconds, or ``None`` (:data:`OFF` will do, too) while it is off: all bits one."""
double: Final = Scalar(SCALARS["CPU_Double_U"])
"""A float of 64 bits: the upper half first, then the lower."""


def equal(kind: Scalar, name: str, *, hint: str = "", **placing: Unpack[Placing]) -> Field:
    """A number that must be the same at both ends; what comes is compared with what the object has.

    Arguments:
        kind: ``u8``, ``u16``, ``u32``, ``u64`` or ``i32``.
        hint: what to do if it is not the same, for the message.
    """
    declared = Declaration("field", name)
    json_kind = "" if not isinstance(kind, Scalar) else "int64 equal" if kind is u64 else f"{kind.cell.kind} equal"
    if json_kind not in SCALARS:
        raise declared.wrong("a field that must be equal is u8, u16, u32, u64 or i32")
    declared.expect("hint", hint, str, "a string")

    def same(value: object, current: object) -> None:
        if value != current:
            what = f"expected {current}, as it is at this end, the payload has {value}"
            raise Fault(f"{what}: {hint}" if hint else what)

    return declared.field(SCALARS[json_kind], placing, check=same)


def not_above(name: str, **placing: Unpack[Placing]) -> Field:
    """A signed number of 32 bits, not negative and not above the one that the object has (``int32 le``).

    Real descriptions have it for versions of a part inside of a structure.
    """
    return Declaration("field", name).field(SCALARS["int32 le"], placing, check=_at_most)


def _at_most(value: object, current: object) -> None:
    if not isinstance(current, int) or not isinstance(value, int) or not 0 <= value <= current:
        raise Fault(f"expected 0 to {current}, the payload has {value}")


def bitmap(name: str, bits: Length, **placing: Unpack[Placing]) -> Field:
    """A bitmap, as a whole number whose bit ``n`` is bit ``n`` of the map.

    Arguments:
        bits: how many, as for ``length``; on the wire it is rounded up to words of 64, the lowest word first.
    """
    declared = Declaration("field", name)
    declared.counts("bits", bits)
    if bits == 0:
        raise declared.wrong("a bitmap of 0 bits")
    codec = bitmap_cell(bits) if isinstance(bits, int) else Counted(bits, bitmap_cell, "bitmap")
    return declared.field(codec, placing, count=bits)


def buffer(
    name: str, size: Length, *, start: int | None = None, kind: str = "buffer", **placing: Unpack[Placing]
) -> Field:
    """Raw bytes.

    Arguments:
        size: how many; a number, or as for ``length``.
        start: where they begin in the object's buffer, which is longer.
        kind: the type's name in the JSON, for bytes whose format the author knows.
    """
    declared = Declaration("field", name)
    declared.counts("size", size)
    declared.expect("kind", kind, str, "a string")
    codec: Codec
    if isinstance(size, int):
        codec = bytes_cell(size, kind)
    else:
        codec = Counted(size, lambda length: bytes_cell(length, kind), kind)
    return declared.field(declared.part(codec, start, size), placing, count=size)


def descriptor(name: str, **placing: Unpack[Placing]) -> Field:
    """An open file; as a value, its descriptor.

    Whoever saves decides how it crosses, as QEMU's migration mode does: its number, of 32 bits, for a process that has
    the file open already (cpr-exec); or a blank in its place, and the descriptor itself beside the bytes (SCM_RIGHTS),
    see :meth:`Description.save <migpool.vmsd.description.Description.save>`.
    """
    return Declaration("field", name).field(Descriptor(), placing)


def byte_array(name: str, **placing: Unpack[Placing]) -> Field:
    """Raw bytes behind their number, which is in the stream and need not be in the object (``GByteArray``)."""
    return Declaration("field", name).field(ByteArray(), placing)


def validate(name: str, condition: Condition) -> Field:
    """No bytes at all, but a check: saving and loading fail unless ``condition`` (of object and version) is true here.

    It sees the fields before it, so it can guard a count before the array that uses it.
    """
    declared = Declaration("field", name)
    declared.calls("condition", condition, "the object", "the version")
    return Field(name, Blank(0), declared.line, "", when=condition, must=True)


def unused(size: int, *, length: Length | None = None, since: int = 0, when: Condition | None = None) -> Field:
    """Bytes that mean nothing (any more): zeros when written, skipped when read. They have no attribute.

    Arguments:
        size: how many; with a ``length``, of each element.
    """
    declared = Declaration("field", "unused")
    declared.whole("size", size)
    if size == 0:
        raise declared.wrong("0 unused bytes")
    codec = declared.array(Blank(size), length)
    return declared.field(codec, {"since": since, "when": when, "attribute": ""}, count=length)


def struct(
    name: str,
    description: Description,
    *,
    length: Length | None = None,
    start: int | None = None,
    new: Callable[[], object] = SimpleNamespace,
    **placing: Unpack[Placing],
) -> Field:
    """A structure in this place, without a header; also one behind a pointer that is never null.

    Loading goes into the object (or the list of objects) that is there already, and into new ones otherwise.

    Arguments:
        description: what it consists of; its own version says which layout.
        new: makes an object to load into.
    """
    declared = Declaration("field", name)
    codec = declared.array(declared.nested("description", description, new), length, start)
    return declared.field(codec, placing, count=length)


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
    declared = Declaration("field", name)
    declared.structure("description", description)
    declared.whole("version", version)
    if not description.minimum_version <= version <= description.version:
        raise declared.wrong(
            f"{description.name} has versions {description.minimum_version} to {description.version}, not {version}"
        )
    codec = declared.array(declared.nested("description", description, new, version), length)
    return declared.field(codec, placing, count=length)


def pointers(
    name: str,
    target: Description | Scalar,
    *,
    length: Length,
    allocate: bool = False,
    new: Callable[[], object] = SimpleNamespace,
    **placing: Unpack[Placing],
) -> Field:
    """An array of pointers, where ``None`` is a null pointer: the byte 0x30 in its place.

    The bytes do not say which ones are null; the object that is loaded into has ``None`` in the same places. A timer
    that is off is :data:`OFF` here.

    Arguments:
        target: what they point to.
        allocate: the bytes do say which ones are null: there is a 0x31 before each of the others, and loading makes
            every element anew (the newer ``..._AUTO_ALLOC`` of QEMU).
    """
    declared = Declaration("field", name)
    element: Codec
    if isinstance(target, Scalar):
        element = POINTED_TIMER if target is timer else target.cell
    else:
        element = declared.nested("target", target, new)
    declared.counts("length", length)
    declared.truth("allocate", allocate)
    if allocate:
        return declared.field(AllocatedArray(element, length), placing, count=length)
    declared.elements(element)
    return declared.field(PointerArray(element, length), placing, count=length)


def queue(
    name: str, description: Description, *, new: Callable[[], object] = SimpleNamespace, **placing: Unpack[Placing]
) -> Field:
    """A tail queue: 01 before each element, 00 at the end. A list of objects, replaced by a new one when loaded."""
    declared = Declaration("field", name)
    return declared.field(Queue(declared.nested("description", description, new), "qtailq"), placing)


def linked_list(
    name: str, description: Description, *, new: Callable[[], object] = SimpleNamespace, **placing: Unpack[Placing]
) -> Field:
    """A list; on the wire as a :func:`queue`, in the JSON a ``qlist``."""
    declared = Declaration("field", name)
    return declared.field(Queue(declared.nested("description", description, new), "qlist"), placing)


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
    declared = Declaration("field", name)
    keys = None if key is None else declared.nested("key", key, new_key)
    return declared.field(Tree(keys, declared.nested("value", value, new)), placing)


def temporary(
    description: Description,
    *,
    new: Callable[[Any], object],
    name: str = "tmp",
    since: int = 0,
    when: Condition | None = None,
) -> Field:
    """Values computed for the wire alone, from an object that is made for it each time.

    Arguments:
        description: the values; its ``pre_save`` computes them, its ``post_load`` takes them apart again.
        new: called with the object that is saved or loaded, which it should keep a reference to.
    """
    declared = Declaration("field", name)
    structure = declared.structure("description", description)
    declared.calls("new", new, "the object")
    codec = Temporary(structure, new)
    return declared.field(codec, {"since": since, "when": when, "attribute": ""})
