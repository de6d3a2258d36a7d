"""Made-up descriptions with made-up values: saved, measured, loaded and read again by their own JSON."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace

from hypothesis import assume, given
from hypothesis import strategies as st

from migpool.vmsd import fields
from migpool.vmsd.description import Description
from migpool.vmsd.fields import Scalar
from migpool.vmsd.jsonform import section_structure
from migpool.vmsd.steps import Field


@dataclass
class Sample:
    """A description, an object with values for it, and an object to load into."""

    description: Description
    full: SimpleNamespace
    empty: SimpleNamespace


def whole(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low = -(2 ** (bits - 1)) if signed else 0
    return st.integers(low, low + 2**bits - 1)


SCALARS: list[tuple[Scalar, st.SearchStrategy[object]]] = [
    (fields.boolean, st.booleans()),
    (fields.timer, st.none() | st.integers(0, 2**64 - 2)),
    (fields.double, st.floats(allow_nan=False)),
    *((kind, whole(bits, False)) for kind, bits in ((fields.u8, 8), (fields.u16, 16), (fields.u32, 32))),
    *((kind, whole(bits, True)) for kind, bits in ((fields.i8, 8), (fields.i16, 16), (fields.i64, 64))),
    (fields.u64, whole(64, False)),
    (fields.i32, whole(32, True)),
]


@st.composite
def samples(draw: st.DrawFn, name: str = "d", depth: int = 2) -> Sample:
    """A description called ``name`` whose structures nest ``depth`` deep."""
    full, empty = SimpleNamespace(), SimpleNamespace()
    made: list[Field] = []
    for index in range(draw(st.integers(0, 5))):
        made.extend(draw(any_field(f"f{index}", depth, full, empty)))
    parts: list[Description] = []
    if draw(st.booleans()):
        full.sub = draw(whole(16, False))
        parts.append(Description(f"{name}/s", fields=[fields.u16("sub")]))
    return Sample(Description(name, fields=made, subsections=parts), full, empty)


@st.composite
def any_field(draw: st.DrawFn, name: str, depth: int, full: SimpleNamespace, empty: SimpleNamespace) -> list[Field]:
    """One field (with its count, if it needs one), its value set in ``full``."""
    kind = draw(st.integers(0, 15 if depth else 10))
    if kind <= 1:
        scalar, values = draw(st.sampled_from(SCALARS))
        setattr(full, name, draw(values))
        return [scalar(name)]
    if kind == 2:
        scalar, values = draw(st.sampled_from(SCALARS))
        items = draw(st.lists(values, max_size=4))
        setattr(full, name, items)
        return [scalar(name, length=len(items))]
    if kind == 3:
        items = draw(st.lists(whole(32, False), max_size=4))
        setattr(full, name, items)
        setattr(full, f"{name}_used", len(items))
        return [fields.u16(f"{name}_used"), fields.u32(name, length=f"{name}_used")]
    if kind == 4:
        data = draw(st.binary(max_size=20))
        setattr(full, name, data)
        return [fields.buffer(name, len(data))]
    if kind == 5:
        bits = draw(st.integers(1, 130))
        setattr(full, name, draw(whole(bits, False)))
        return [fields.bitmap(name, bits)]
    if kind == 6:
        present = draw(st.booleans())
        setattr(full, f"{name}_there", present)
        if present:
            setattr(full, name, draw(whole(8, False)))
        return [
            fields.boolean(f"{name}_there"),
            fields.u8(name, when=lambda device, _: getattr(device, f"{name}_there")),
        ]
    if kind == 7:
        setattr(full, name, draw(st.binary(max_size=20)))
        return [fields.byte_array(name)]
    if kind == 8:
        bits = draw(st.integers(0, 130))
        setattr(full, f"{name}_bits", bits)
        setattr(full, name, draw(whole(bits, False)) if bits else 0)
        return [fields.u16(f"{name}_bits"), fields.bitmap(name, f"{name}_bits")]
    if kind == 9:
        items = draw(st.lists(whole(16, False), min_size=3, max_size=6))
        setattr(full, name, items)
        setattr(empty, name, items[:])
        return [fields.u16(name, start=1, length=len(items) - 2)]
    if kind == 10:
        times = draw(st.lists(st.none() | st.just(fields.OFF) | st.integers(0, 2**64 - 2), max_size=4))
        setattr(full, name, times)
        setattr(empty, name, [None if each is None else 0 for each in times])
        allocate = draw(st.booleans())
        return [fields.unused(2, length=1), fields.pointers(name, fields.timer, length=len(times), allocate=allocate)]
    inner = draw(samples(f"{name}_{depth}", depth - 1))
    if kind == 12:
        setattr(full, name, inner.full)
        setattr(empty, name, inner.empty)
        return [fields.struct(name, inner.description)]

    def fresh() -> object:
        return deepcopy(inner.empty)

    if kind == 13:
        setattr(full, name, [inner.full] * draw(st.integers(0, 3)))
        return [fields.queue(name, inner.description, new=fresh)]
    if kind == 14:
        keys = draw(st.lists(whole(64, False), unique=True, max_size=3))
        setattr(full, name, dict.fromkeys(keys, inner.full))
        return [fields.tree(name, inner.description, new=fresh)]
    if kind == 11:
        setattr(full, name, [inner.full if there else None for there in draw(st.lists(st.booleans(), max_size=4))])
        allocated = fields.pointers(name, inner.description, length=len(getattr(full, name)), allocate=True, new=fresh)
        return [allocated]
    assume(inner.description.structure.least > 0)
    nulls = draw(st.lists(st.booleans(), max_size=4))
    setattr(full, name, [None if null else inner.full for null in nulls])
    setattr(empty, name, [None if null else fresh() for null in nulls])
    return [fields.pointers(name, inner.description, length=len(nulls))]


@given(samples())
def test_what_is_saved_is_measured_and_loaded(sample: Sample) -> None:
    description = sample.description
    data, described = description.save_described(sample.full)
    assert description.save(sample.full) == data
    before = repr(sample.empty)
    assert description.measure(data + b"\x7e", sample.empty) == len(data)
    assert repr(sample.empty) == before
    for end in range(len(data)):
        assert description.measure(data[:end], sample.empty) is None
    description.load(sample.empty, data)
    assert description.save(sample.empty) == data
    assert description.show(sample.empty) == description.show(sample.full)
    json.dumps(described)


@given(samples())
def test_what_is_saved_can_be_read_by_its_own_json(sample: Sample) -> None:
    data, described = sample.description.save_described(sample.full)
    copied = json.loads(json.dumps({"name": "d", **described}))
    structure = section_structure(copied, sample.description.version)
    reader = Description.from_structure(structure)
    record: dict[str, object] = {}
    reader.load(record, data)
    assert reader.save(record) == data
    assert reader.describe(record) == described
    assert reader.measure(data + b"\x7e", {}) == len(data)
