"""What an author of a description gets wrong is found when it is declared, and says in which line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from migpool.errors import DescriptionError, UsageError
from migpool.vmsd import fields
from migpool.vmsd.description import Description
from migpool.vmsd.fields import (
    bitmap,
    buffer,
    double,
    equal,
    pointers,
    struct,
    u8,
    unused,
    vstruct,
)

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


def test_the_default_versions_are_those_of_qemu() -> None:
    assert (Description("d").version, Description("d").minimum_version) == (0, 0)
    assert Description("d", version=4).minimum_version == 0


D = Description("d")
loose: Any = fields  # what a type checker would have told
described: Any = Description
WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: loose.u8(5), "expected a string as name, it is 5"),
    (
        lambda: loose.u8("x", length=1.5),
        "field x: expected a whole number, the name of an attribute or a function of the obj",
    ),
    (lambda: loose.u8("x", length=True), "field x: expected a whole number, the name of an attribute"),
    (
        lambda: loose.u8("x", length=lambda: 1),
        "field x: expected a function of the object as length: too many positional",
    ),
    (lambda: loose.u8("x", since="1"), "field x: expected a whole number as since, it is '1'"),
    (lambda: loose.u8("x", since=-1), "field x: its since is -1, not 0 or more"),
    (lambda: loose.u8("x", when=5), "field x: expected a function of the object and the version as when, it is 5"),
    (
        lambda: loose.u8("x", when=lambda device: device),
        "field x: expected a function of the object and the version as when: ",
    ),
    (lambda: loose.u8("x", attribute=7), "field x: expected a string as attribute, it is 7"),
    (lambda: loose.u8("x", start=1), "field x: it has a start, but no length"),
    (lambda: loose.u8("x", start=-1, length=1), "field x: its start is -1"),
    (
        lambda: loose.u8("x", start=1, length="n"),
        "field x: a part that begins somewhere must have a length that is a number",
    ),
    (lambda: loose.buffer("x", "n", start=1), "field x: a part that begins somewhere"),
    (lambda: loose.buffer("x", None), "field x: expected a whole number, the name of an attribute or a function"),
    (lambda: loose.buffer("x", 1, kind=1), "field x: expected a string as kind, it is 1"),
    (lambda: loose.bitmap("x", 1.0), "field x: expected a whole number, the name"),
    (lambda: loose.unused("4"), "field unused: expected a whole number as size, it is '4'"),
    (lambda: loose.equal("u8", "x"), "field x: a field that must be equal is u8, u16"),
    (lambda: loose.equal(u8, "x", hint=1), "field x: expected a string as hint, it is 1"),
    (
        lambda: loose.validate("x", None),
        "field x: expected a function of the object and the version as condition, it is None",
    ),
    (
        lambda: loose.validate("x", lambda device: device),
        "field x: expected a function of the object and the version as cond",
    ),
    (lambda: loose.struct("x", "d"), "field x: expected a Description as description, it is 'd'"),
    (lambda: loose.struct("x", D, new=5), "field x: expected a function without arguments as new, it is 5"),
    (
        lambda: loose.struct("x", D, new=lambda parent: parent),
        "field x: expected a function without arguments as new: missing",
    ),
    (lambda: loose.vstruct("x", None, version=1), "field x: expected a Description as description, it is None"),
    (lambda: loose.vstruct("x", D, version="1"), "field x: expected a whole number as version, it is '1'"),
    (lambda: loose.pointers("x", u8("y"), length=1), "field x: expected a Description as target, it is the field y"),
    (lambda: loose.pointers("x", u8, length=None), "field x: expected a whole number, the name of an attribute"),
    (lambda: loose.queue("x", u8), "field x: expected a Description as description"),
    (lambda: loose.tree("x", D, key="k"), "field x: expected a Description as key, it is 'k'"),
    (lambda: loose.temporary(D, new=lambda: 1), "field tmp: expected a function of the object as new: too many"),
    (lambda: loose.u8("x", lenght=1), "field x: there is no argument lenght; known besides: since, when, attribute"),
    (lambda: loose.struct("x", D, check=None), "field x: there is no argument check"),
    (lambda: loose.pointers("x", D, length=1, allocate=1), "field x: expected True or False as allocate, it is 1"),
    (lambda: described("d", early="no"), "description d: expected True or False as early, it is 'no'"),
    (lambda: described(5), "description: expected a string as name, it is 5"),
    (lambda: described("d", version="1"), "description d: expected a whole number as version, it is '1'"),
    (lambda: described("d", version=True), "description d: expected a whole number as version, it is True"),
    (lambda: described("d", minimum_version=None), "description d: expected a whole number as minimum_version"),
    (lambda: described("d", fields=u8("x")), r"description d: expected a list of fields as fields, it is the field x"),
    (lambda: described("d", fields=[u8]), "description d: expected a list of fields as fields, it is the kind uint8"),
    (lambda: described("d", fields=["x"]), "description d: expected a list of fields as fields, it is 'x'"),
    (lambda: described("d", subsections=D), "description d: expected a list of Descriptions as subsections"),
    (lambda: described("d", subsections=[u8("x")]), "description d: expected a list of Descriptions as subsections"),
    (lambda: described("d", needed=True), "description d: expected a function of the object as needed, it is True"),
    (lambda: described("d", pre_save="f"), "description d: expected a function of the object as pre_save"),
    (
        lambda: described("d", post_load=lambda it: it),
        "description d: expected a function of the object and the vers",
    ),
    (lambda: described("d", priority=3), "description d: expected a Priority as priority, it is 3"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(at) for at in range(len(WRONG))])
def test_a_wrong_type_is_told_with_the_line_of_the_definition(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(DescriptionError, match=message) as caught:
        wrong()
    assert str(caught.value).startswith(f"{__file__}:{wrong.__code__.co_firstlineno}: ")
    assert "\n" not in str(caught.value)
