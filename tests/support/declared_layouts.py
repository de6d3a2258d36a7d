"""Layouts of descriptions that are declared in Python, to compare as those of two streams are."""

from __future__ import annotations

from collections.abc import Mapping

from migpool.vmsd.arrays import Array, PointerArray
from migpool.vmsd.cells import Blank
from migpool.vmsd.description import Description
from migpool.vmsd.layout import Extent, FieldLayout, Layout, LayoutSet
from migpool.vmsd.steps import Field
from migpool.vmsd.structure import Nested, Structure


def from_descriptions(descriptions: Mapping[str, Description]) -> LayoutSet:
    """Declared descriptions by device name."""
    return LayoutSet({name: _declared(made.structure) for name, made in descriptions.items()}, machine=True)


def _declared(structure: Structure) -> Layout:
    return Layout(
        structure.name,
        structure.version,
        structure.minimum_version,
        tuple(_member(member) for member in structure.fields),
        {part.structure.name: _declared(part.structure) for part in structure.subsections},
    )


def _member(member: Field) -> FieldLayout:
    codec = member.codec
    length: int | None = 1
    if isinstance(codec, Array | PointerArray):
        length = codec.length if isinstance(codec.length, int) else None
        codec = codec.element
    inner = _declared(codec.structure) if isinstance(codec, Nested) else None
    name = "unused" if isinstance(codec, Blank) else member.label
    extent = Extent.COUNTED if length is None else Extent.FIXED
    return FieldLayout(name, codec.size, length, member.since, member.when is not None, inner, extent)
