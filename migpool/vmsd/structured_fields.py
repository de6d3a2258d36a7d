"""Declarations of fields with parts of their own: structures, pointers, queues, trees. See :mod:`.fields`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Unpack

from migpool.errors import DescriptionError
from migpool.vmsd.arrays import Length, PointerArray
from migpool.vmsd.codec import Codec
from migpool.vmsd.declaration import Condition, Field, Placing, declared_at, placed
from migpool.vmsd.linked import Queue, Tree
from migpool.vmsd.nested import Nested, Temporary
from migpool.vmsd.plain_fields import Scalar, check_elements, with_length

if TYPE_CHECKING:
    from migpool.vmsd.description import Description


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
    codec, count = with_length(line, name, Nested(description.structure, new), length)
    return placed(name, codec, line, count=count, **placing)


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
    codec, count = with_length(line, name, Nested(description.structure, new, version), length)
    return placed(name, codec, line, count=count, **placing)


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
    check_elements(line, name, element, length)
    count = length if isinstance(length, str) else None
    return placed(name, PointerArray(element, length), line, count=count, **placing)


def queue(
    name: str, description: Description, *, new: Callable[[], object] = SimpleNamespace, **placing: Unpack[Placing]
) -> Field:
    """A tail queue: 01 before each element, 00 at the end. A list of objects, replaced by a new one when loaded."""
    codec = Queue(Nested(description.structure, new), "qtailq")
    return placed(name, codec, declared_at(sys._getframe(1)), **placing)


def linked_list(
    name: str, description: Description, *, new: Callable[[], object] = SimpleNamespace, **placing: Unpack[Placing]
) -> Field:
    """A list; on the wire as a :func:`queue`, in the JSON a ``qlist``."""
    codec = Queue(Nested(description.structure, new), "qlist")
    return placed(name, codec, declared_at(sys._getframe(1)), **placing)


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
    return placed(name, codec, line, **placing)


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
