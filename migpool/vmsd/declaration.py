"""What a field's declaration says, checked against the description that it stands in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TypeAlias, TypedDict, Unpack

from migpool.errors import DescriptionError
from migpool.vmsd.arrays import Array, PointerArray
from migpool.vmsd.cells import Blank
from migpool.vmsd.codec import Codec
from migpool.vmsd.nested import Nested
from migpool.vmsd.steps import Member
from migpool.vmsd.structure import Structure

Condition: TypeAlias = Callable[..., object]
"""Called with the object and the section's version; says whether a field is there."""


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field; made by the functions of :mod:`~migpool.vmsd.fields`.

    Arguments:
        name: its name in the stream's JSON, and of the attribute if that is not given.
        codec: its form on the wire.
        line: where it was declared, ``file:line``.
        attribute: the attribute that holds its value; empty for one without a value in the object.
        since: the version in which it appeared.
        when: called with the object and the version; decides alone whether the field is there.
        check: what a value must be to be loaded.
        count: the attribute that holds its length.
    """

    name: str
    codec: Codec
    line: str
    attribute: str
    since: int = 0
    when: Condition | None = None
    check: Callable[[object, object], None] | None = None
    count: str | None = None


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


def member_list(owner: str, version: int, fields: Sequence[Field]) -> list[Member]:
    """Check the fields of a description among each other, and make its members.

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
    members: list[Member] = []
    for place, field in enumerate(fields):
        _check(owner, version, field, fields[:place], fields[place + 1 :])
        label = field.name
        if occurrences[field.name] > 1:
            label = f"{field.name}[{numbers[field.name]}]"
            numbers[field.name] += 1
        members.append(Member(field.name, label, field.attribute, field.codec, field.since, field.when, field.check))
    return members


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
    before = _last_names([(field.codec, field.when is None) for field in fields])
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
    names = {structure.name} | _last_names([(member.codec, member.when is None) for member in structure.members])
    for part in structure.subsections:
        names |= _names_at_end(part.structure)
    return names


def _last_names(codecs: Sequence[tuple[Codec, bool]]) -> set[str]:
    """The names of structures that can end at the end of a row of codecs, some of which are not always there."""
    names: set[str] = set()
    for codec, certain in reversed(codecs):
        element = codec.element if isinstance(codec, Array | PointerArray) else codec
        if isinstance(element, Nested):
            names |= _names_at_end(element.structure)
        if certain and codec.least:
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
