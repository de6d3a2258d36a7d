"""Which changes of a description break which direction of a migration: pairs known to be good and known to be bad."""

from __future__ import annotations

import pytest

from migpool.vmsd.description import Description
from migpool.vmsd.diff import Change, Compatibility, Verdict, compare, compatibility
from migpool.vmsd.fields import buffer, queue, struct, u8, u16, u32, u64, unused
from tests.support.declared_layouts import from_descriptions

LOADS, CANNOT_TELL, BREAKS = Verdict.LOADS, Verdict.CANNOT_TELL, Verdict.BREAKS


def changes(old: Description, new: Description) -> list[Change]:
    return compare(from_descriptions({"d": old}), from_descriptions({"d": new}))


def sometimes(*_: object) -> bool:
    return True


PART = Description("part", version=1, fields=[u8("x"), u16("y")])
BASE = Description("d", version=1, fields=[u8("a"), u32("b"), u64("c")])

PAIRS = [
    ("nothing", BASE, Description("d", version=1, fields=[u8("a"), u32("b"), u64("c")]), LOADS, LOADS, ""),
    (
        "a field with a new version that still reads the old one",
        BASE,
        Description("d", version=2, minimum_version=1, fields=[u8("a"), u32("b"), u64("c"), u8("e", since=2)]),
        LOADS,
        BREAKS,
        "the source writes version 2, the destination reads up to 1",
    ),
    (
        "a field with a new version that reads no old one",
        BASE,
        Description("d", version=2, minimum_version=2, fields=[u8("a"), u32("b"), u64("c"), u8("e", since=2)]),
        BREAKS,
        BREAKS,
        "forward: the source writes version 1, the destination reads from 2 on; backward: the source writes version 2",
    ),
    (
        "a field without a new version",
        BASE,
        Description("d", version=1, fields=[u8("a"), u32("b"), u64("c"), u8("e")]),
        BREAKS,
        BREAKS,
        "forward: the source does not write it; backward: the destination does not read it",
    ),
    (
        "a field under a condition",
        BASE,
        Description("d", version=1, fields=[u8("a"), u32("b"), u64("c"), u8("e", when=sometimes)]),
        CANNOT_TELL,
        CANNOT_TELL,
        "it breaks whenever the field's condition holds",
    ),
    (
        "a condition on a field",
        BASE,
        Description("d", version=1, fields=[u8("a"), u32("b", when=sometimes), u64("c")]),
        CANNOT_TELL,
        CANNOT_TELL,
        "only the destination makes it depend on a condition",
    ),
    (
        "another size",
        BASE,
        Description("d", version=1, fields=[u8("a"), u64("b"), u64("c")]),
        BREAKS,
        BREAKS,
        "forward: 4 bytes are written, 8 are read; backward: 8 bytes are written, 4 are read",
    ),
    (
        "fields that changed places",
        BASE,
        Description("d", version=1, fields=[u32("b"), u8("a"), u64("c")]),
        BREAKS,
        BREAKS,
        "it stands in another place among the fields",
    ),
    (
        "a field that became unused",
        BASE,
        Description("d", version=1, fields=[u8("a"), unused(4), u64("c")]),
        LOADS,
        LOADS,
        "forward: 4 bytes of fields became unused; they are skipped; backward: 4 unused bytes became fields",
    ),
    ("a new name", BASE, Description("d", version=1, fields=[u8("a"), u32("z"), u64("c")]), LOADS, LOADS, "renamed"),
    (
        "a field cut in two",
        BASE,
        Description("d", version=1, fields=[u8("a"), u32("b"), u32("low"), u32("high")]),
        LOADS,
        LOADS,
        "the same 8 bytes, cut into other fields",
    ),
    (
        "a new subsection",
        BASE,
        Description(
            "d",
            version=1,
            fields=[u8("a"), u32("b"), u64("c")],
            subsections=[Description("d/s", version=1, fields=[u8("e")])],
        ),
        LOADS,
        CANNOT_TELL,
        "forward: the source does not send this subsection; it may be missing; backward: the destination did not send",
    ),
    (
        "a structure that grew",
        Description("d", version=1, fields=[struct("p", PART)]),
        Description(
            "d",
            version=1,
            fields=[
                struct("p", Description("part", version=2, minimum_version=2, fields=[u8("x"), u16("y"), u8("z")]))
            ],
        ),
        BREAKS,
        BREAKS,
        "the source does not write it",
    ),
    (
        "a longer array of structures",
        Description("d", version=1, fields=[struct("p", PART, length=2)]),
        Description("d", version=1, fields=[struct("p", PART, length=3)]),
        BREAKS,
        BREAKS,
        "forward: 2 elements are written, 3 are read",
    ),
    (
        "a longer array",
        Description("d", version=1, fields=[u16("p", length=2)]),
        Description("d", version=1, fields=[u16("p", length=3)]),
        BREAKS,
        BREAKS,
        "forward: 4 bytes are written, 6 are read",
    ),
    (
        "a buffer that became a queue",
        Description("d", version=1, fields=[buffer("p", 4)]),
        Description("d", version=1, fields=[queue("p", PART)]),
        CANNOT_TELL,
        CANNOT_TELL,
        "its size is fixed at one end and varies at the other",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "forward", "backward", "reason"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS]
)
def test_a_change_and_its_verdict(
    old: Description, new: Description, forward: Verdict, backward: Verdict, reason: str
) -> None:
    found = changes(old, new)
    assert compatibility(found) == Compatibility(forward, backward)
    assert any(reason in each.reason for each in found) if reason else found == []
    assert all("\n" not in each.reason and each.path.startswith("d") for each in found)
    assert compatibility(changes(new, old)) == Compatibility(backward, forward)


def test_a_subsection_is_compared_by_its_own_version() -> None:
    def with_part(version: int, minimum: int) -> Description:
        return Description("d", subsections=[Description("d/s", version=version, minimum_version=minimum)])

    (change,) = changes(with_part(1, 1), with_part(2, 1))
    assert (change.path, change.forward, change.backward) == ("d, subsection d/s", LOADS, BREAKS)


def test_a_missing_device_breaks_the_way_to_where_it_is_missing() -> None:
    (change,) = compare(from_descriptions({"d": BASE, "e": PART}), from_descriptions({"d": BASE}))
    assert (change.path, change.forward, change.backward) == ("e", BREAKS, LOADS)
    assert change.reason == "the destination has no such device"
