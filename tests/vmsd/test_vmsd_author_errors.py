"""What an author of a description gets wrong is found when it is declared, and says in which line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import pytest

from migpool.errors import DescriptionError, UsageError
from migpool.vmsd.description import Description
from migpool.vmsd.fields import bitmap, buffer, double, equal, pointers, struct, u8, u16, unused, vstruct

PART = Description("part", version=2, minimum_version=1, fields=[u8("x")])

# Each function holds one mistake, in the line marked with "wrong".


def count_after_its_array() -> object:
    return Description(
        "d",
        fields=[
            u8("items", length="used"),  # wrong
            u8("used"),
        ],
    )


def size_after_its_buffer() -> object:
    return Description(
        "d",
        fields=[
            buffer("items", "used"),  # wrong
            u8("used"),
        ],
    )


def a_name_twice() -> object:
    return Description(
        "d",
        fields=[
            u8("x"),
            u16("x"),  # wrong
        ],
    )


def a_name_twice_with_one_condition() -> object:
    return Description(
        "d",
        fields=[
            u8("x", when=lambda *_: True),
            u16("x"),  # wrong
        ],
    )


def field_newer_than_the_description() -> object:
    return Description(
        "d",
        version=2,
        fields=[
            u8("x", since=3),  # wrong
        ],
    )


def minimum_over_the_version() -> object:
    return Description("d", version=1, minimum_version=2)  # wrong


def negative_version() -> object:
    return Description("d", version=-1)  # wrong


def no_name() -> object:
    return Description("")  # wrong


def name_not_ascii() -> object:
    return Description("gerät")  # wrong


def subsection_without_the_parents_name() -> object:
    alarm = Description("alarm")  # wrong
    return Description("clock", subsections=[alarm])


def subsection_with_only_the_parents_name() -> object:
    alarm = Description("clock")  # wrong
    return Description("clock", subsections=[alarm])


def a_subsection_twice() -> object:
    return Description("d", subsections=[Description("d/a"), Description("d/a")])  # wrong


def subsection_that_a_sibling_would_take() -> object:
    short = Description("d/tx")
    long = Description("d/tx_queue")  # wrong
    return Description("d", subsections=[short, long])


def subsection_that_the_last_field_would_take() -> object:
    inner = Description("net", fields=[u8("x")])
    middle = Description("middle", fields=[struct("inner", inner, length=2), u8("y", when=lambda *_: False)])
    part = Description("net_card/part")  # wrong
    return Description("net_card", fields=[struct("middle", middle)], subsections=[part])


def an_array_whose_subsections_nobody_can_tell_apart() -> object:
    part = Description("part", fields=[u8("x", when=lambda *_: False)], subsections=[Description("part/s")])
    return struct("x", part, length=2)  # wrong


def an_attribute_that_is_none() -> object:
    return Description(
        "d",
        fields=[
            u8("fifo[0]"),  # wrong
        ],
    )


def negative_length() -> object:
    return u8("x", length=-1)  # wrong


def negative_number_of_pointers() -> object:
    return pointers("x", PART, length=-1)  # wrong


def negative_size() -> object:
    return buffer("x", -1)  # wrong


def nothing_unused() -> object:
    return unused(0)  # wrong


def bitmap_without_bits() -> object:
    return bitmap("x", 0)  # wrong


def equal_doubles() -> object:
    return equal(double, "x")  # wrong


def version_that_a_structure_does_not_have() -> object:
    return vstruct("x", PART, version=3)  # wrong


MISTAKES = [
    (count_after_its_array, "field items of d: its count used comes after it; it must be read before"),
    (size_after_its_buffer, "field items of d: its count used comes after it"),
    (a_name_twice, r"field x of d: the name is taken by .*\.py:\d+; only conditional fields may share one"),
    (a_name_twice_with_one_condition, "field x of d: the name is taken by"),
    (field_newer_than_the_description, "field x of d: it appears in version 3, the description ends with 2"),
    (minimum_over_the_version, "minimum_version 2 of d is not from 0 to its 1"),
    (negative_version, "the version of d is -1"),
    (no_name, "a name has 1 to 255 ASCII characters, not ''"),
    (name_not_ascii, "a name has 1 to 255 ASCII characters"),
    (
        subsection_without_the_parents_name,
        r"the name of subsection alarm must begin with its parent's .*: clock/\.\.\.",
    ),
    (subsection_with_only_the_parents_name, "the name of subsection clock must begin with its parent's and be longer"),
    (a_subsection_twice, "d has the subsection d/a twice"),
    (subsection_that_a_sibling_would_take, "subsection d/tx_queue of d would be taken for one of d/tx, which can end"),
    (subsection_that_the_last_field_would_take, "subsection net_card/part of net_card would be taken for one of net"),
    (
        an_array_whose_subsections_nobody_can_tell_apart,
        "field x: an array of part, which has subsections, but no bytes",
    ),
    (an_attribute_that_is_none, r"'fifo\[0\]' is no attribute; give it one with attribute="),
    (negative_length, "field x: its length is -1"),
    (negative_number_of_pointers, "field x: its length is -1"),
    (negative_size, "field x: its size is -1"),
    (nothing_unused, "0 unused bytes"),
    (bitmap_without_bits, "field x: a bitmap of 0 bits"),
    (equal_doubles, "field x: a field that must be equal is u8, u16, u32, u64 or i32"),
    (version_that_a_structure_does_not_have, "field x: part has versions 1 to 2, not 3"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=[mistake.__name__ for mistake, _ in MISTAKES])
def test_the_line_of_the_mistake_is_named(mistake: Callable[[], object], message: str) -> None:
    lines, first = inspect.getsourcelines(mistake)
    wrong = first + next(index for index, line in enumerate(lines) if line.rstrip().endswith("# wrong"))
    with pytest.raises(DescriptionError, match=message) as caught:
        mistake()
    assert re.match(rf"{re.escape(__file__)}:{wrong}: ", str(caught.value))
    assert isinstance(caught.value, UsageError)
    assert "\n" not in str(caught.value)


def test_a_count_may_be_no_field_at_all() -> None:
    assert Description("d", fields=[u8("items", length="lines")]).name == "d"


def test_subsections_may_be_similar_where_none_can_be_mistaken() -> None:
    inner = Description("net", fields=[u8("x")])
    parts = [Description("net_card/tx_queue"), Description("net_card/tx")]
    made = Description("net_card", fields=[struct("inner", inner), u8("y")], subsections=parts)
    assert [part.structure.name for part in made.structure.subsections] == ["net_card/tx_queue", "net_card/tx"]


def test_names_may_repeat_under_conditions() -> None:
    fields = [u8("x", when=lambda *_: True), u16("x", when=lambda *_: False), unused(1), unused(2)]
    assert Description("d", fields=fields).version == 1


def test_without_a_minimum_only_the_newest_version_is_read() -> None:
    assert Description("d", version=4).minimum_version == 4
    assert Description("d", fields=[struct("part", PART)]).minimum_version == 1
