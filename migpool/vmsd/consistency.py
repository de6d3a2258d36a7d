"""What the fields and subsections of one description mean for each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from migpool.errors import DescriptionError
from migpool.vmsd.arrays import AllocatedArray, Array, Part, PointerArray
from migpool.vmsd.steps import Field
from migpool.vmsd.structure import Nested, Structure


def numbered(owner: str, version: int, fields: Sequence[Field]) -> list[Field]:
    """Check the fields of a description among each other, and number those of one name.

    Names that occur more than once get their number in the JSON.

    Arguments:
        owner: the description's name.
        version: the description's version.
        fields: its fields.

    Raises:
        DescriptionError: a version too high, or a count that comes after what it counts.
    """
    occurrences = Counter(field.name for field in fields)
    numbers: Counter[str] = Counter()
    made: list[Field] = []
    for place, field in enumerate(fields):
        _check_field(owner, version, field, fields[:place], fields[place + 1 :])
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
        element = codec.element if isinstance(codec, Array | Part | PointerArray | AllocatedArray) else codec
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
    counted = field.count is not None and not any(other.attribute == field.count for other in before)
    if counted and any(other.attribute == field.count for other in after):
        raise DescriptionError(f"{what}: its count {field.count} comes after it; it must be read before")
