"""Functions of an author that fail: the message says in which description, field and byte, and what was raised."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from migpool.device import DeviceError
from migpool.errors import Cancelled
from migpool.vmsd.description import Description
from migpool.vmsd.fields import bitmap, buffer, queue, struct, temporary, u8, u16, validate

Function = Callable[..., Any]
PART = Description("part", fields=[u8("x")])


def ns(**values: object) -> SimpleNamespace:
    return SimpleNamespace(**values)


def inner(hook: str) -> Callable[[Function], Description]:
    return lambda f: Description(
        "d",
        fields=[u16("a"), struct("s", Description("s", fields=[u8("y")], **{hook: f}))],  # type: ignore[arg-type]
    )


def outer(hook: str) -> Callable[[Function], Description]:
    return lambda f: Description("d", fields=[u16("a")], **{hook: f})  # type: ignore[arg-type]


PLACES: list[tuple[str, str, Callable[[Function], Description]]] = [
    ("when", r"field v\.when\(\) at byte 2", lambda f: Description("d", fields=[u16("a"), u8("v", when=f)])),
    ("condition", r"field v\.condition\(\) at byte 2", lambda f: Description("d", fields=[u16("a"), validate("v", f)])),
    ("length", r"field v\.length\(\) at byte 2", lambda f: Description("d", fields=[u16("a"), u8("v", length=f)])),
    ("size", r"field v\.length\(\) at byte 2", lambda f: Description("d", fields=[u16("a"), buffer("v", f)])),
    ("bits", r"field v\.length\(\) at byte 2", lambda f: Description("d", fields=[u16("a"), bitmap("v", f)])),
    (
        "in a part",
        r"field s\.v\.when\(\) at byte 2",
        lambda f: Description("d", fields=[u16("a"), struct("s", Description("s", fields=[u8("v", when=f)]))]),
    ),
    (
        "new of a temporary",
        r"field tmp\.new\(\) at byte 2",
        lambda f: Description("d", fields=[u16("a"), temporary(PART, new=f)]),
    ),
    *(
        (f"inner {hook}", rf"field s\.{hook}\(\) at byte 2", inner(hook))
        for hook in ("pre_load", "post_load", "pre_save", "post_save")
    ),
    *((f"outer {hook}", rf"field {hook}\(\) at byte 0", outer(hook)) for hook in ("pre_load", "post_load", "pre_save")),
    ("outer post_save", r"field post_save\(\) at byte 2", outer("post_save")),
    (
        "needed",
        r"field d/s\.needed\(\) at byte 2",
        lambda f: Description("d", fields=[u16("a")], subsections=[Description("d/s", needed=f)]),
    ),
]
SAVING = {"inner post_save", "inner pre_save", "outer pre_save", "outer post_save", "needed"}
LOADING = {"inner pre_load", "inner post_load", "outer pre_load", "outer post_load"}


def fails_with(error: Exception) -> Function:
    def fail(*_: object) -> None:
        raise error

    return fail


def attempts(place: str, description: Description) -> list[Callable[[], object]]:
    state = ns(a=1, v=[1], s=ns(y=1, v=1))
    made: list[Callable[[], object]] = []
    if place not in LOADING:
        made += [lambda: description.save(state), lambda: description.describe(state)]
    if place not in SAVING:
        made.append(lambda: description.load(state, b"\x00\x01\x01\x01"))
    return made


@pytest.mark.parametrize(
    "error", [TypeError("a\nb"), OSError(5, "a b"), AttributeError("a b"), ZeroDivisionError("a b")]
)
@pytest.mark.parametrize(("place", "where", "made"), PLACES, ids=[place for place, _, _ in PLACES])
def test_description_field_byte_and_error_are_told(
    place: str, where: str, made: Callable[[Function], Description], error: Exception
) -> None:
    description = made(fails_with(error))
    for attempt in attempts(place, description):
        expected = ("inner post_save" in place and where.replace("byte 2", "byte 3")) or where
        with pytest.raises(
            DeviceError, match=rf"^d: {expected} of the payload: {type(error).__name__}: .*a b$"
        ) as caught:
            attempt()
        assert caught.value.__cause__ is error
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("place", "where", "made"), PLACES, ids=[place for place, _, _ in PLACES])
def test_a_cancel_passes_as_it_is(place: str, where: str, made: Callable[[Function], Description]) -> None:
    del where
    for attempt in attempts(place, made(fails_with(Cancelled("by hand")))):
        with pytest.raises(Cancelled, match="by hand"):
            attempt()


@pytest.mark.parametrize("returned", [0, 1, -22, True, False, "", "no"])
@pytest.mark.parametrize("hook", ["pre_load", "post_load", "pre_save", "post_save"])
@pytest.mark.parametrize("kind", [inner, outer])
def test_a_hook_that_returns_anything_is_refused(
    kind: Callable[[str], Callable[[Function], Description]], hook: str, returned: object
) -> None:
    description = kind(hook)(lambda *_: returned)
    (*_, attempt) = attempts(f"inner {hook}", description)
    with pytest.raises(
        DeviceError, match=rf"{hook}\(\) at byte \d of the payload: it returned {returned!r}: a hook raises"
    ):
        attempt()


def test_what_goes_wrong_first_is_told_even_if_post_save_fails_as_well() -> None:
    description = Description("d", fields=[u8("x")], post_save=fails_with(ValueError("second")))
    with pytest.raises(DeviceError, match="field x: SimpleNamespace has no attribute x"):
        description.save(ns())


def test_a_queue_that_makes_no_elements_is_told() -> None:
    description = Description("d", fields=[queue("q", PART, new=fails_with(TypeError("x needed")))])
    with pytest.raises(DeviceError, match=r"d: field q\[0\]\.new\(\) at byte 1 of the payload: TypeError: x needed"):
        description.load(ns(), b"\x01\x01\x00")


def test_a_property_that_fails_is_told() -> None:
    class Device:
        @property
        def x(self) -> int:
            raise ValueError("not now")

        @x.setter
        def x(self, value: int) -> None:
            raise ValueError(f"not {value}")

    description = Description("d", fields=[u8("x")])
    with pytest.raises(DeviceError, match=r"d: field x\.get\(\) at byte 0 of the payload: ValueError: not now"):
        description.save(Device())
    with pytest.raises(DeviceError, match=r"d: field x\.set\(\) at byte 0 of the payload: ValueError: not 7"):
        description.load(Device(), b"\x07")
