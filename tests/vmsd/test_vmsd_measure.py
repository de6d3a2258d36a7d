"""A payload is measured as it will be loaded, whatever its length depends on; or it is said that it cannot be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest

from migpool.device import DeviceError
from migpool.migration.settings import Settings
from migpool.vmsd.description import Description
from migpool.vmsd.fields import boolean, buffer, pointers, queue, struct, temporary, tree, u8, u16, validate
from migpool_plugins.vmsd import DescribedDevice
from tests.support.rig import migrate


def ns(**values: object) -> SimpleNamespace:
    return SimpleNamespace(**values)


def of_two(state: SimpleNamespace) -> None:
    state.items = [ns(x=0), ns(x=0)]
    state.count = len(state.items)


def doubled(state: SimpleNamespace, _version: int) -> None:
    state.count = state.half * 2


HALF = Description("half", fields=[u8("half")], post_load=doubled)
ITEM = Description("item", fields=[u8("x")])


class InParent:
    """Halves what the parent has on the wire."""

    def __init__(self, parent: SimpleNamespace) -> None:
        self.parent = parent
        self.half = getattr(parent, "count", 0) // 2

    def tell(self, _version: int) -> None:
        self.parent.count = self.half * 2


def in_the_list(state: SimpleNamespace, _version: int) -> None:
    state.seen.append(state.x)


CASES: list[tuple[Description, SimpleNamespace, str]] = [
    (
        Description("d", pre_load=of_two, fields=[struct("items", ITEM, length=lambda it: len(it.items)), u8("last")]),
        ns(items=[]),
        "010203",
    ),
    (Description("d", pre_load=of_two, fields=[u16("v", length="count")]), ns(count=9), "00010002"),
    (
        Description("d", fields=[struct("part", HALF), u8("v", length=lambda it: it.part.count)]),
        ns(part=ns(count=7)),
        "02 01020304",
    ),
    (
        Description(
            "d",
            fields=[
                temporary(Description("tmp", fields=[u8("half")], post_load=InParent.tell), new=InParent),
                buffer("raw", "count"),
            ],
        ),
        ns(count=1),
        "02 61626364",
    ),
    (
        Description(
            "d",
            fields=[queue("q", HALF), u8("v", length=lambda it: sum(each.count for each in it.q))],
        ),
        ns(),
        "01 01 01 02 00" + "00" * 6,
    ),
    (
        Description("d", fields=[tree("t", HALF), u8("v", length=lambda it: it.t[7].count)]),
        ns(),
        "00000001 01 0000000000000007 01 00 0000",
    ),
    (
        Description(
            "d",
            fields=[
                struct("parts", Description("seen", fields=[u8("x")], post_load=in_the_list), length=2),
                u8("v", length=lambda it: len(it.parts[0].seen)),
            ],
        ),
        (lambda seen: ns(parts=[ns(seen=seen), ns(seen=seen)]))([]),
        "0102 0000",
    ),
    (
        Description(
            "d",
            fields=[u8("x")],
            subsections=[
                Description("d/half", fields=[u8("half")], post_load=doubled),
                Description("d/v", fields=[u8("v", length="count")]),
            ],
        ),
        ns(count=0),
        "07" + b"\x05\x06d/half\0\0\0\0\x01\x05\x03d/v\0\0\0\0\x08\x09".hex(),
    ),
    (
        Description("d", fields=[boolean("on"), pointers("p", u8, length=2), u8("v", when=lambda it, _: it.on)]),
        ns(on=False, p=[None, 0]),
        "01 30 05 09",
    ),
    (
        Description("d", fields=[u8("n"), validate("few", lambda it, _: it.n < 3), u8("v", length="n")]),
        ns(n=9),
        "02 0101",
    ),
]


@pytest.mark.parametrize(("description", "state", "data"), CASES, ids=[str(at) for at in range(len(CASES))])
def test_the_measure_is_that_of_the_load(description: Description, state: SimpleNamespace, data: str) -> None:
    payload = bytes.fromhex(data)
    before = deepcopy(state)
    for end in range(len(payload)):
        assert description.measure(payload[:end], state) is None
    assert description.measure(payload + b"\x7e\x00\x00\x00\x01", state) == len(payload)
    assert state == before
    description.load(state, payload)


def test_a_part_that_looks_back_at_the_whole_is_measured_with_what_has_come() -> None:
    """The part's condition reads a value of the outer object that stands earlier in the same payload."""
    part = Description("part", fields=[u8("x", when=lambda it, _: it.owner.wide), u8("y")])
    description = Description("d", fields=[boolean("wide"), struct("part", part)])
    state = ns(wide=False)
    state.part = ns(owner=state)
    assert description.measure(b"\x01\x02\x03\x7e", state) == 3
    assert not state.wide


class Locked:
    """Has what cannot be copied, beside what can."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callback: Callable[[], int] = lambda: 2
        self.log: list[int] = []
        self.n = self.last = 0
        self.v: list[int] = []

    def begin(self) -> None:
        with self.lock:
            self.log.append(self.callback())

    def count(self) -> int:
        assert isinstance(self, Locked)
        return self.n + len(self.log)


def test_what_cannot_be_copied_is_shared() -> None:
    description = Description("d", pre_load=Locked.begin, fields=[u8("n"), u8("v", length=Locked.count)])
    state = Locked()
    assert description.measure(b"\x02abc\x7e", state) == 4
    assert (state.n, state.log) == (0, [])


def test_a_device_whose_hooks_decide_its_length_crosses(tmp_path: Path) -> None:
    class Made(DescribedDevice, Locked):
        description = Description(
            "made", pre_load=Locked.begin, fields=[u8("n"), u8("v", length=Locked.count), u8("last")]
        )

    source, destination = Made(), Made()
    source.n, source.v, source.last = 2, [5, 6, 7, 8], 9
    source.log = [2, 2]
    destination.log = [2]
    sent, got = migrate(tmp_path, [source], [destination], settings=Settings(channels=1, peer_limit=20))
    assert (sent.error, got.error) == ("", "")
    assert (destination.v, destination.last, destination.log) == ([5, 6, 7, 8], 9, [2, 2])


class Closing(Locked):
    """A copy of it would give back, when it goes away, what the original still needs."""

    def __del__(self) -> None:
        assert self.lock is not None


class Alone(Locked):
    def __reduce__(self) -> str:
        raise ValueError("there can be only one")


@pytest.mark.parametrize("kind", [Closing, Alone])
def test_what_cannot_be_measured_is_said(kind: type[Locked]) -> None:
    description = Description("d", fields=[u8("n"), u8("v", length=Locked.count)])
    with pytest.raises(DeviceError, match=r"d: the length cannot be measured, as it depends on the object, .* no copy"):
        description.measure(b"\x02abc\x7e", kind())
    plain = Description("d", fields=[u8("n")])
    assert plain.measure(b"\x02\x7e", kind()) == 1


def test_nobody_is_called_where_the_bytes_tell_the_length() -> None:
    def never(*_: object) -> None:
        raise AssertionError("called")

    inner = Description("inner", fields=[u8("x")], pre_load=never, post_load=never)
    description = Description(
        "d",
        pre_load=never,
        post_load=never,
        fields=[
            *(struct("one", inner, new=never), queue("q", inner, new=never), tree("t", inner, new=never)),
            *(temporary(inner, new=never), pointers("p", inner, length=2, allocate=True, new=never)),
        ],
        subsections=[Description("d/s", fields=[u8("y")], post_load=never)],
    )
    data = bytes.fromhex("01 01 02 00 00000001 01 0000000000000007 03 00 04 30 31 05") + b"\x05\x03d/s\0\0\0\0\x06"
    assert description.measure(data + b"\x7e", object()) == len(data)


def test_the_last_hook_is_not_called_to_measure() -> None:
    calls: list[str] = []
    description = Description(
        "d",
        pre_load=lambda _: calls.append("pre"),
        fields=[u8("n"), u8("v", length="n")],
        post_load=lambda *_: calls.append("post"),
    )
    assert description.measure(b"\x01\x01\x7e", ns()) == 2
    assert calls == ["pre"]
