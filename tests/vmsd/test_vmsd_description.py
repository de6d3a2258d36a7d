"""Declared descriptions: versions, conditions, hooks, subsections, temporaries, and what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from migpool.device import DeviceError
from migpool.vmsd.description import Description
from migpool.vmsd.fields import buffer, pointers, queue, struct, temporary, u8, u16, unused, vstruct

GROWN = Description("grown", version=3, minimum_version=1, fields=[u8("a"), u8("b", since=2), u8("c", since=3)])


@pytest.mark.parametrize(
    ("version", "data", "loaded"),
    [(1, "01", {"a": 1}), (2, "0102", {"a": 1, "b": 2}), (3, "010203", {"a": 1, "b": 2, "c": 3})],
)
def test_a_field_is_there_from_its_version_on(version: int, data: str, loaded: dict[str, int]) -> None:
    state = SimpleNamespace()
    GROWN.load(state, bytes.fromhex(data), version)
    assert vars(state) == loaded
    assert GROWN.measure(bytes.fromhex(data), SimpleNamespace(), version) == version


@pytest.mark.parametrize("version", [0, 4])
def test_a_version_that_is_too_new_or_too_old_is_refused(version: int) -> None:
    message = f"grown: the state has version {version}, this description reads (up to 3|from 1 on)"
    with pytest.raises(DeviceError, match=message):
        GROWN.check_version(version)
    with pytest.raises(DeviceError, match=message):
        GROWN.load(SimpleNamespace(), bytes(4), version)


def test_a_condition_decides_alone_and_sees_object_and_version() -> None:
    seen: list[tuple[int, int]] = []

    def has_extra(device: SimpleNamespace, version: int) -> bool:
        seen.append((device.flags, version))
        return bool(device.flags & 1)

    description = Description(
        "d", version=2, minimum_version=1, fields=[u8("flags"), u8("extra", since=2, when=has_extra)]
    )
    state = SimpleNamespace()
    description.load(state, b"\x01\x09", 1)
    assert vars(state) == {"flags": 1, "extra": 9}
    assert seen == [(1, 1)]
    assert description.save(SimpleNamespace(flags=2)) == b"\x02"
    assert description.show(SimpleNamespace(flags=2)) == {"flags": "0x02"}


def test_a_nested_structure_has_the_version_of_its_own_description() -> None:
    outer = Description("outer", version=1, fields=[struct("inner", GROWN), vstruct("old", GROWN, version=2)])
    state = SimpleNamespace()
    outer.load(state, bytes.fromhex("010203 0405"))
    assert vars(state.inner) == {"a": 1, "b": 2, "c": 3}
    assert vars(state.old) == {"a": 4, "b": 5}
    kinds = outer.describe(state)["fields"]
    assert isinstance(kinds, list)
    assert [(each["type"], each["size"]) for each in kinds] == [("struct", 3), ("vstruct", 2)]
    assert (kinds[0]["struct"]["version"], kinds[1]["version"]) == (3, 2)


def test_hooks_are_called_around_saving_and_loading() -> None:
    calls: list[object] = []
    inner = Description(
        "inner", version=1, fields=[u8("x")], post_load=lambda _, version: calls.append(("inner", version))
    )
    description = Description(
        "d",
        version=2,
        minimum_version=1,
        fields=[struct("inner", inner)],
        subsections=[Description("d/more", fields=[u8("y")], post_load=lambda state, _: calls.append(state.y))],
        pre_save=lambda _: calls.append("pre_save"),
        post_save=lambda _: calls.append("post_save"),
        pre_load=lambda state: calls.append(sorted(vars(state))),
        post_load=lambda _, version: calls.append(("outer", version)),
    )
    data = description.save(SimpleNamespace(inner=SimpleNamespace(x=1), y=2))
    assert calls == ["pre_save", "post_save"]
    calls.clear()
    assert description.measure(data + b"\x7e", SimpleNamespace()) == len(data)
    assert calls == []
    description.load(SimpleNamespace(), data, 1)
    assert calls == [[], ("inner", 1), 2, ("outer", 1)]


def test_post_save_is_called_even_if_saving_fails() -> None:
    calls: list[str] = []
    description = Description("d", fields=[u8("x")], post_save=lambda _: calls.append("post_save"))
    with pytest.raises(DeviceError, match="has no attribute x"):
        description.save(SimpleNamespace())
    assert calls == ["post_save"]


@pytest.mark.parametrize("error", [DeviceError("too many lines"), ValueError("too many lines"), KeyError("lines")])
def test_what_a_hook_finds_wrong_names_the_place(error: Exception) -> None:
    def complain(_state: object, _version: int) -> None:
        raise error

    inner = Description("inner", fields=[u8("x")], post_load=complain)
    description = Description("d", fields=[u8("y"), struct("part", inner)])
    with pytest.raises(DeviceError, match=r"d: field part\.post_load\(\) at byte 1 of the payload: .*lines") as caught:
        description.load(SimpleNamespace(), b"\x00\x00")
    assert caught.value.__cause__ is error


MORE = Description("d/more", version=2, minimum_version=1, needed=lambda s: s.more > 0, fields=[u8("more")])
DEEP = Description("d/deep/er", version=1, fields=[u8("deeper")])
DEEP_PARENT = Description("d/deep", version=1, needed=lambda s: s.deep > 0, fields=[u8("deep")], subsections=[DEEP])
PARENT = Description("d", fields=[u8("x")], subsections=[MORE, DEEP_PARENT])


def test_subsections_are_sent_if_needed_and_nest() -> None:
    def hold(**values: int) -> SimpleNamespace:
        return SimpleNamespace(**{"x": 1, "more": 0, "deep": 0, "deeper": 0, **values})

    assert PARENT.save(hold()) == b"\x01"
    assert PARENT.save(hold(more=2)) == b"\x01" + b"\x05\x06d/more\x00\x00\x00\x02\x02"
    deep = b"\x05\x06d/deep\x00\x00\x00\x01\x03" + b"\x05\x09d/deep/er\x00\x00\x00\x01\x04"
    data = PARENT.save(hold(deep=3, deeper=4))
    assert data == b"\x01" + deep
    state = hold()
    PARENT.load(state, data)
    assert state == hold(deep=3, deeper=4)
    assert PARENT.show(state) == {"x": "0x01", "d/deep": {"deep": "0x03", "d/deep/er": {"deeper": "0x04"}}}
    described = PARENT.describe(state)
    assert described["subsections"] == [
        {
            "vmsd_name": "d/deep",
            "version": 1,
            "fields": [{"name": "deep", "type": "uint8", "size": 1}],
            "subsections": [
                {"vmsd_name": "d/deep/er", "version": 1, "fields": [{"name": "deeper", "type": "uint8", "size": 1}]}
            ],
        }
    ]
    assert "subsections" not in PARENT.describe(hold())


def test_a_subsection_is_asked_for_when_the_one_before_has_been_written() -> None:
    def fill(state: SimpleNamespace) -> None:
        state.y = 7

    parts = [
        Description("d/a", fields=[u8("x")], pre_save=fill),
        Description("d/b", fields=[u8("y")], needed=lambda state: state.y),
    ]
    data = Description("d", subsections=parts).save(SimpleNamespace(x=1, y=0))
    assert data == b"\x05\x03d/a\0\0\0\0\x01\x05\x03d/b\0\0\0\0\x07"


def test_subsections_may_come_in_any_order_and_older() -> None:
    state = SimpleNamespace()
    PARENT.load(state, b"\x01\x05\x06d/deep\x00\x00\x00\x01\x03\x05\x06d/more\x00\x00\x00\x01\x02")
    assert vars(state) == {"x": 1, "deep": 3, "more": 2}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01\x05\x06d/none\x00\x00\x00\x01", "subsection 'd/none' is not known here; known: d/more, d/deep"),
        (b"\x01\x05\x06d/\nxxx\x00\x00\x00\x01", r"subsection 'd/\\nxxx' is not known here"),
        (b"\x01\x05\x06d/more\x00\x00\x00\x03\x02", r"field d/more at byte 1 .* version 3, .* reads up to 2"),
        (b"\x01\x05\x06d/more\x00\x00\x00\x01", r"field d/more\.more at byte 13 of the payload: expected 1 bytes"),
        (b"\x01\x05\x06d/more\x00\x00", "expected 12 bytes of a subsection's header, 10 bytes are left"),
        (b"\x01\x05\x01d\x00\x00\x00\x01", "at byte 1 of the payload: expected the end of the payload, 7 bytes follow"),
        (b"\x01\x05\x06e/more\x00\x00\x00\x01\x02", "expected the end of the payload"),
    ],
)
def test_a_wrong_subsection_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        PARENT.load(SimpleNamespace(), data)


def test_a_05_after_a_nested_structure_is_data_unless_its_name_follows() -> None:
    inner = Description("inner", fields=[u8("x")], subsections=[Description("inner/s", fields=[u8("y")])])
    outer = Description("outer", fields=[struct("part", inner), u8("five"), u8("length"), buffer("name", "length")])
    for data in (b"\x01\x05\x07outer/s", b"\x01\x05\x05inner", b"\x01\x05\x08innxxxxx"):
        state = SimpleNamespace()
        outer.load(state, data)
        assert (state.five, state.name) == (5, data[3:])
        assert outer.measure(data + b"\x7e", SimpleNamespace()) == len(data)
    with pytest.raises(DeviceError, match="subsection 'inner/t' is not known here"):
        outer.load(SimpleNamespace(), b"\x01\x05\x07inner/t\x00\x00\x00\x01")


@dataclass
class Packed:
    """What stands on the wire instead of the parent's value."""

    parent: SimpleNamespace
    high: int = 0
    low: int = 0

    def pack(self) -> None:
        self.high, self.low = divmod(self.parent.value, 256)

    def unpack(self, version: int) -> None:
        assert version == 1
        self.parent.value = self.high * 256 + self.low


def test_temporaries_are_computed_for_the_wire() -> None:
    wire = Description(
        "packed", version=1, fields=[u8("high"), u8("low")], pre_save=Packed.pack, post_load=Packed.unpack
    )
    description = Description("d", fields=[temporary(wire, new=Packed), u8("x")])
    data, described = description.save_described(SimpleNamespace(value=0x1234, x=1))
    assert data == bytes.fromhex("1234 01")
    state = SimpleNamespace()
    description.load(state, data)
    assert (state.value, state.x) == (0x1234, 1)
    assert description.show(state) == {"tmp": "12 34", "x": "0x01"}
    assert described["fields"] == [
        {
            "name": "tmp",
            "type": "tmp",
            "vmsd_name": "packed",
            "version": 1,
            "fields": [{"name": "high", "type": "uint8", "size": 1}, {"name": "low", "type": "uint8", "size": 1}],
            "size": 2,
        },
        {"name": "x", "type": "uint8", "size": 1},
    ]


def test_fields_that_share_a_name_are_numbered() -> None:
    description = Description(
        "d",
        fields=[
            unused(1),
            u8("config", when=lambda device, _: not device.wide),
            u16("config", when=lambda device, _: device.wide),
            unused(2),
        ],
    )
    entries = description.describe(SimpleNamespace(wide=True, config=7))["fields"]
    assert isinstance(entries, list)
    assert [each["name"] for each in entries] == ["unused[0]", "config[1]", "unused[1]"]


def test_runs_of_null_pointers_have_entries_of_their_own() -> None:
    point = Description("point", fields=[u8("x")])
    description = Description("d", fields=[pointers("p", point, length=5), queue("q", point)])
    there = SimpleNamespace(x=1)
    entries = description.describe(SimpleNamespace(p=[None, None, there, there, None], q=[there]))["fields"]
    assert isinstance(entries, list)
    short = [{key: value for key, value in each.items() if key != "struct"} for each in entries]
    assert short == [
        {"name": "p", "array_len": 2, "type": "nullptr", "size": 1},
        {"name": "p", "array_len": 2, "type": "struct", "size": 1},
        {"name": "p", "type": "nullptr", "size": 1},
        {"name": "q", "type": "qtailq", "size": 3},
    ]


def test_elements_that_can_differ_have_an_index_each_except_the_last() -> None:
    element = Description("e", fields=[u8("x", when=lambda state, _: state.x > 0)])
    description = Description("d", fields=[struct("e", element, length=3)])
    items = [SimpleNamespace(x=1), SimpleNamespace(x=0), SimpleNamespace(x=2)]
    entries = description.describe(SimpleNamespace(e=items))["fields"]
    assert isinstance(entries, list)
    assert [(each.get("index"), each["size"]) for each in entries] == [(0, 1), (1, 0), (None, 1)]
