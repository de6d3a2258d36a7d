"""What a field's declaration says, checked against the description that it stands in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import TypedDict, Unpack

from migpool.errors import DescriptionError
from migpool.vmsd.arrays import Array, PointerArray
from migpool.vmsd.cells import Blank
from migpool.vmsd.codec import Codec
from migpool.vmsd.nested import Nested
from migpool.vmsd.steps import Condition, Field
from migpool.vmsd.structure import Structure


class Placing(TypedDict, total=False):
    """What a declaration of any kind may say of its place; see :mod:`~migpool.vmsd.fields`."""

    since: int
    when: Condition | None
    attribute: str | None


def placed(
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


def declared_at(frame: FrameType) -> str:
    """The place of a declaration, ``file:line``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def numbered(owner: str, version: int, fields: Sequence[Field]) -> list[Field]:
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
        _check(owner, version, field, fields[:place], fields[place + 1 :])
        made.append(replace(field, number=numbers[field.name]) if occurrences[field.name] > 1 else field)
        numbers[field.name] += 1
    return made


def check_order(owner: str, fields: Sequence[Field], subsections: Sequence[tuple[str, Structure]]) -> None:
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


def _check(owner: str, version: int, field: Field, before: Sequence[Field], after: Sequence[Field]) -> None:
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
