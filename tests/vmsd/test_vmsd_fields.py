"""What fields do besides turning values into bytes: counting, comparing, pointing, and refusing what is wrong."""

from __future__ import annotations

import os
import socket
import struct as packing
import tempfile
from types import SimpleNamespace

import pytest

from migpool.device import DeviceError
from migpool.vmsd.description import Description
from migpool.vmsd.fields import (
    OFF,
    bitmap,
    boolean,
    buffer,
    descriptor,
    double,
    equal,
    i8,
    i32,
    linked_list,
    not_above,
    pointers,
    queue,
    struct,
    timer,
    tree,
    u8,
    u16,
    u32,
    u64,
    unused,
    validate,
)
from migpool.vmsd.steps import Field

POINT = Description("point", version=3, minimum_version=1, fields=[u8("x"), u16("y", since=3)])
KEY = Description("key", fields=[u16("low"), u16("high")])


def point(x: int, y: int) -> SimpleNamespace:
    return SimpleNamespace(x=x, y=y)


@pytest.mark.parametrize("bits", [0x7FF0000000000001, 0x7FF8000000000001, 0xFFF0000000000000])
def test_a_double_keeps_every_bit_of_what_is_no_number(bits: int) -> None:
    description = Description("d", fields=[double("v"), double("w", length=2)])
    data = packing.pack(">QQQ", bits, bits, bits)
    loaded = SimpleNamespace()
    description.load(loaded, data)
    assert description.save(loaded) == data


def test_unused_bytes_are_written_as_zeros_and_skipped_when_read() -> None:
    description = Description("d", fields=[u8("a"), unused(3), u8("b")])
    assert description.save(SimpleNamespace(a=1, b=2)) == bytes.fromhex("01 000000 02")
    loaded = SimpleNamespace()
    description.load(loaded, bytes.fromhex("03 ffffff 04"))
    assert loaded == SimpleNamespace(a=3, b=4)
    assert description.show(loaded) == {"a": "0x03", "unused": "00 00 00", "b": "0x04"}


def test_an_array_is_counted_by_a_field_before_it() -> None:
    description = Description("d", fields=[u8("used"), u16("v", length="used"), buffer("raw", "used")])
    holder = SimpleNamespace(used=2, v=[1, 2], raw=b"ab")
    assert description.save(holder) == bytes.fromhex("02 0001 0002 6162")
    loaded = SimpleNamespace()
    description.load(loaded, bytes.fromhex("02 0001 0002 6162"))
    assert loaded == holder


def test_an_array_may_be_counted_by_the_object_or_a_function_of_it() -> None:
    description = Description("d", fields=[u8("v", length="lines"), u8("w", length=lambda device: device.lines + 1)])
    loaded = SimpleNamespace(lines=1)
    description.load(loaded, b"\x05\x06\x07")
    assert (loaded.v, loaded.w) == ([5], [6, 7])


def test_a_null_pointer_is_the_byte_30_in_its_place() -> None:
    description = Description("d", fields=[pointers("v", POINT, length=3), pointers("w", u16, length=2)])
    data = bytes.fromhex("30 303130 30 0001 30")
    assert description.save(SimpleNamespace(v=[None, point(0x30, 0x3130), None], w=[1, None])) == data
    loaded = SimpleNamespace(v=[None, point(0, 0), None], w=[0, None])
    description.load(loaded, data)
    assert loaded == SimpleNamespace(v=[None, point(0x30, 0x3130), None], w=[1, None])
    assert description.show(loaded) == {
        "v": ["nullptr", {"x": "0x30", "y": "0x3130"}, "nullptr"],
        "w": ["0x0001", "nullptr"],
    }
    assert description.measure(data + b"\x7e", SimpleNamespace(v=[None, point(0, 0), None], w=[0, None])) == len(data)


def test_a_timer_that_is_off_is_no_null_pointer() -> None:
    description = Description("d", fields=[pointers("v", timer, length=4)])
    data = bytes.fromhex("0000000000000005 ffffffffffffffff 30 ffffffffffffffff")
    assert description.save(SimpleNamespace(v=[5, OFF, None, OFF])) == data
    loaded = SimpleNamespace(v=[OFF, 7, None, OFF])
    assert description.measure(data + b"\x7e", loaded) == len(data)
    description.load(loaded, data)
    assert loaded == SimpleNamespace(v=[5, OFF, None, OFF])
    assert Description("d", fields=[timer("v")]).save(SimpleNamespace(v=OFF)) == b"\xff" * 8


@pytest.mark.parametrize("marker", ["00", "2f", "32", "ff"])
def test_only_two_bytes_say_whether_a_pointer_is_there(marker: str) -> None:
    description = Description("d", fields=[pointers("v", u8, length=2, allocate=True)])
    with pytest.raises(DeviceError, match=rf"d: field v\[1\] at byte 1 .*: expected 0x31 before .* it is 0x{marker}"):
        description.load(SimpleNamespace(), bytes.fromhex("30" + marker))


def test_unused_elements_are_counted_by_a_field_before_them() -> None:
    description = Description("d", fields=[u8("used"), unused(3, length="used"), u8("b")])
    state = SimpleNamespace(used=2, b=1)
    data, described = description.save_described(state)
    assert data == bytes.fromhex("02 000000 000000 01")
    assert described["fields"][1] == {"name": "unused", "array_len": 2, "type": "unused_buffer", "size": 3}  # type: ignore[index]
    loaded = SimpleNamespace()
    description.load(loaded, bytes.fromhex("02 010203 040506 01"))
    assert loaded == state
    assert description.measure(data + b"\x7e", SimpleNamespace()) == len(data)
    assert description.show(state) == {"used": "0x02", "unused": ["00 00 00", "00 00 00"], "b": "0x01"}
    with pytest.raises(DeviceError, match="field unused at byte 1 of the payload: expected 255 elements of at least 3"):
        description.load(SimpleNamespace(), b"\xff")


def test_a_bitmap_is_as_long_as_a_field_says() -> None:
    description = Description("d", fields=[i32("bits"), bitmap("v", "bits"), bitmap("w", lambda it: it.bits + 1)])
    state = SimpleNamespace(bits=64, v=1 << 63 | 1, w=1 << 64)
    data, described = description.save_described(state)
    assert data == bytes.fromhex("00000040 8000000000000001 0000000000000000 0000000000000001")
    assert [each["size"] for each in described["fields"]] == [4, 8, 16]  # type: ignore[attr-defined]
    loaded = SimpleNamespace()
    description.load(loaded, data)
    assert loaded == state
    with pytest.raises(DeviceError, match="expected a bitmap of 3 bits, bit 3 is set"):
        description.load(SimpleNamespace(), bytes.fromhex("00000003 0000000000000008"))


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_part_of_an_array_leaves_the_rest_alone(kind: type) -> None:
    description = Description("d", fields=[u16("v", start=1, length=2), struct("s", KEY, start=1, length=1)])
    keys = [SimpleNamespace(low=1, high=2), SimpleNamespace(low=3, high=4)]
    state = SimpleNamespace(v=kind([9, 1, 2, 9]), s=keys)
    data, described = description.save_described(state)
    assert data == bytes.fromhex("0001 0002 0003 0004")
    assert described["fields"][0] == {"name": "v", "array_len": 2, "type": "uint16", "size": 2}  # type: ignore[index]
    assert description.show(state) == {"v": ["0x0001", "0x0002"], "s": [{"low": "0x0003", "high": "0x0004"}]}
    loaded = SimpleNamespace(v=kind([5, 6, 7, 8]), s=[SimpleNamespace(low=0, high=0), SimpleNamespace(low=0, high=0)])
    before, (first, second) = loaded.v, loaded.s
    assert description.measure(data + b"\x7e", loaded) == len(data)
    description.load(loaded, data)
    assert loaded.v == kind([5, 1, 2, 8])
    assert (loaded.v is before) is (kind is list)
    assert (first, second) == (SimpleNamespace(low=0, high=0), SimpleNamespace(low=3, high=4))


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_part_of_a_buffer_leaves_the_rest_alone(kind: type) -> None:
    description = Description("d", fields=[buffer("v", 2, start=3), buffer("w", 1, start=0)])
    state = SimpleNamespace(v=kind(b"abcdef"), w=kind(b"xy"))
    assert description.save(state) == b"dex"
    loaded = SimpleNamespace(v=kind(b"......"), w=kind(b"--"))
    description.load(loaded, b"dex")
    assert loaded == SimpleNamespace(v=kind(b"...de."), w=kind(b"x-"))
    for attempt in (description.save, lambda short: description.load(short, b"dex")):
        with pytest.raises(DeviceError, match=r"field v.*: expected at least 5 elements in the object, it has b'abcd'"):
            attempt(SimpleNamespace(v=b"abcd", w=b"x"))


def test_descriptors_are_passed_beside_the_bytes_or_by_number() -> None:
    part = Description("part", fields=[descriptor("fd")])
    description = Description("d", fields=[u8("n"), descriptor("fd"), struct("parts", part, length="n")])
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as two:
        one.write(b"one")
        one.flush()
        first, second = one.fileno(), two.fileno()
        state = SimpleNamespace(n=1, fd=first, parts=[SimpleNamespace(fd=second)])
        assert description.save(state) == packing.pack(">Bii", 1, first, second)
        passed: list[int] = []
        data = description.save(state, passed)
        assert (data, passed) == (b"\x01\x20\x20", [first, second])
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(ours, [data], passed)
            got, descriptors, _, _ = socket.recv_fds(theirs, 100, 2)
        try:
            loaded = SimpleNamespace()
            description.load(loaded, got, descriptors=descriptors)
            assert [loaded.fd, loaded.parts[0].fd] == descriptors
            assert os.pread(loaded.fd, 3, 0) == b"one"
        finally:
            for each in descriptors:
                os.close(each)
    with pytest.raises(DeviceError, match="field fd at byte 1 of the payload: expected another descriptor"):
        description.load(SimpleNamespace(), b"\x00\x20", descriptors=[])
    with pytest.raises(DeviceError, match=r"field fd at byte 1 .*: expected 0x20 for a descriptor .*, it is 0x00"):
        description.load(SimpleNamespace(), b"\x00\x00", descriptors=[3])


def test_two_fields_of_one_name_are_numbered_and_may_both_be_there() -> None:
    description = Description("d", fields=[u8("x"), u16("x", attribute="wide"), u8("y")])
    state = SimpleNamespace(x=1, wide=2, y=3)
    assert description.save(state) == bytes.fromhex("01 0002 03")
    assert [each["name"] for each in fields_of(description, state)] == ["x[0]", "x[1]", "y"]
    loaded = SimpleNamespace()
    description.load(loaded, bytes.fromhex("01 0002 03"))
    assert loaded == state
    assert description.show(state) == {"x[0]": "0x01", "x[1]": "0x0002", "y": "0x03"}


def test_a_hint_stands_behind_what_is_not_equal() -> None:
    description = Description("d", fields=[equal(u8, "lines", hint="start both ends with the same number of lines")])
    with pytest.raises(DeviceError, match=r"the payload has 8: start both ends with the same number of lines$"):
        description.load(SimpleNamespace(lines=9), b"\x08")


def test_a_validation_sees_the_version() -> None:
    description = Description(
        "d", version=2, fields=[u8("x"), validate("new_enough", lambda device, version: version > 1 or device.x == 0)]
    )
    description.load(SimpleNamespace(), b"\x01", 2)
    description.load(SimpleNamespace(), b"\x00", 1)
    with pytest.raises(DeviceError, match="field new_enough at byte 1 of the payload: the condition does not hold"):
        description.load(SimpleNamespace(), b"\x01", 1)


@pytest.mark.parametrize(
    ("field", "data", "place"),
    [
        (queue("v", POINT), "", "v at byte 0"),
        (queue("v", POINT), "01010002", r"v\[1\] at byte 4"),
        (linked_list("v", POINT), "01010002 01010002", r"v\[2\] at byte 8"),
        (tree("v", POINT), "00000000", r"v\[0\] at byte 4"),
        (tree("v", POINT), "00000001 010000000000000007010002", r"v\[1\] at byte 16"),
    ],
)
def test_a_terminator_that_is_missing_is_told_as_that(field: Field, data: str, place: str) -> None:
    place = place.replace("v at", r"v(\[0\])? at")
    with pytest.raises(
        DeviceError, match=rf"field {place} .*: expected 01 .* or 00 at the end, the payload ends without"
    ):
        Description("d", fields=[field]).load(SimpleNamespace(), bytes.fromhex(data))


def test_which_pointers_are_null_must_be_known_and_right() -> None:
    description = Description("d", fields=[pointers("v", u8, length=2)])
    with pytest.raises(DeviceError, match="field v at byte 0 of the payload: expected 2 pointers in the object"):
        description.load(SimpleNamespace(), b"\x30\x01")
    with pytest.raises(DeviceError, match=r"field v\[1\] at byte 1 .*: expected 0x30 for an element that is not there"):
        description.load(SimpleNamespace(v=[1, None]), b"\x30\x01")


def test_loading_goes_into_the_objects_that_are_there() -> None:
    description = Description("d", fields=[struct("one", POINT), struct("many", POINT, length=2)])
    one, first, second = point(0, 0), point(0, 0), point(0, 0)
    description.load(SimpleNamespace(one=one, many=[first, second]), bytes.fromhex("010002 030004 050006"))
    assert (one, first, second) == (point(1, 2), point(3, 4), point(5, 6))


def test_a_dotted_attribute_walks_from_object_to_object() -> None:
    description = Description("d", fields=[u8("regs.control"), u8("data[0]", attribute="fifo.first")])
    holder = SimpleNamespace(regs=SimpleNamespace(control=1), fifo=SimpleNamespace(first=2))
    assert description.save(holder) == b"\x01\x02"
    description.load(holder, b"\x03\x04")
    assert (holder.regs.control, holder.fifo.first) == (3, 4)
    assert [each["name"] for each in fields_of(description, holder)] == ["regs.control", "data[0]"]


def fields_of(description: Description, holder: object) -> list[dict[str, object]]:
    entries = description.describe(holder)["fields"]
    assert isinstance(entries, list)
    return entries


def test_a_field_that_must_be_equal_is_compared_with_the_object() -> None:
    description = Description("d", fields=[equal(u32, "lines"), equal(i32, "signed"), equal(u64, "wide")])
    holder = SimpleNamespace(lines=8, signed=-1, wide=1)
    data = description.save(holder)
    assert data == bytes.fromhex("00000008 ffffffff 0000000000000001")
    description.load(holder, data)
    with pytest.raises(DeviceError, match="field lines at byte 0 of the payload: expected 9, as it is at this end"):
        description.load(SimpleNamespace(lines=9, signed=-1, wide=1), data)


@pytest.mark.parametrize(("value", "right"), [(0, True), (2, True), (3, False), (-1, False)])
def test_a_field_not_above_the_object_s(value: int, right: bool) -> None:
    description = Description("d", fields=[not_above("level")])
    holder = SimpleNamespace(level=2)
    data = value.to_bytes(4, "big", signed=True)
    if right:
        description.load(holder, data)
        assert holder.level == value
    else:
        with pytest.raises(DeviceError, match=f"field level at byte 0 of the payload: expected 0 to 2, .* has {value}"):
            description.load(holder, data)


def test_a_validation_takes_no_bytes_and_guards_what_comes_after_it() -> None:
    description = Description(
        "d", fields=[u8("used"), validate("used_fits", lambda device, _: device.used <= 2), u8("v", length="used")]
    )
    assert description.save(SimpleNamespace(used=1, v=[7])) == b"\x01\x07"
    with pytest.raises(DeviceError, match="d: field used_fits at byte 1 of the payload: the condition does not hold"):
        description.load(SimpleNamespace(), b"\x03\x01\x02\x03")
    with pytest.raises(DeviceError, match="d: field used_fits: the condition does not hold"):
        description.save(SimpleNamespace(used=3, v=[1, 2, 3]))
    assert description.show(SimpleNamespace(used=0, v=[])) == {"used": "0x00", "v": []}


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        (boolean("v"), "02", "field v at byte 0 of the payload: expected 0 or 1 for a truth value, it is 2"),
        (boolean("v", length=3), "000102", r"field v\[2\] at byte 2 of the payload: expected 0 or 1"),
        (u32("v"), "000000", "field v at byte 0 of the payload: expected 4 bytes, 3 bytes are left"),
        (bitmap("v", 3), "0000000000000008", "expected a bitmap of 3 bits, bit 3 is set"),
        (u16("v", length=2), "000000", "expected 2 elements of at least 2 bytes each, 3 bytes are left"),
        (struct("v", KEY), "0000", r"field v\.high at byte 2 of the payload: expected 2 bytes, 0 bytes are left"),
        (
            queue("v", POINT),
            "02",
            r"field v\[0\] at byte 0 .*: expected 01 before an element or 00 at the end, it is 02",
        ),
        (
            queue("v", POINT),
            "01010002",
            r"field v\[1\] at byte 4 of the payload: expected 01 before an element or 00 at the end, the payload ends",
        ),
        (queue("v", POINT), "0101", r"field v\[0\]\.y at byte 2 of the payload: expected 2 bytes, 0 bytes are left"),
        (tree("v", POINT), "ffffffff00", "expected 4294967295 elements of at least 12 bytes each, 1 bytes are left"),
        (tree("v", POINT), "0000000000ff", "expected the end of the payload, 1 bytes follow"),
        (tree("v", POINT), "00000000010000000000000001000000" + "00", "expected 0 nodes as announced, 1 have come"),
        (tree("v", POINT), "00000002" + 2 * "010000000000000007010002" + "00", "expected every key once"),
    ],
)
def test_wrong_bytes_are_refused(field: Field, data: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        Description("d", fields=[field]).load(SimpleNamespace(), bytes.fromhex(data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (u8("v"), 256, "field v: expected a whole number from 0 to 255, the object has 256"),
        (u8("v"), -1, "expected a whole number from 0 to 255"),
        (i8("v"), 128, "expected a whole number from -128 to 127"),
        (u8("v"), 1.5, "expected a whole number"),
        (u8("v"), None, "the object has None"),
        (boolean("v"), 2, "expected True or False, the object has 2"),
        (timer("v"), 2**64 - 1, "expected nanoseconds below"),
        (double("v"), "1", "expected a floating-point number"),
        (buffer("v", 2), b"abc", "expected 2 bytes, the object has b'abc'"),
        (buffer("v", 2), "ab", "expected 2 bytes"),
        (bitmap("v", 3), 8, "expected a whole number of 3 bits"),
        (bitmap("v", 3), -1, "expected a whole number of 3 bits"),
        (u16("v", length=2), [1], "expected 2 elements, the object has 1"),
        (u16("v", length=2), 7, "expected 2 elements, the object has 7"),
        (u16("v", length=2), [1, 65536], r"field v\[1\]: expected a whole number from 0 to 65535"),
        (struct("v", POINT), None, "field v: expected the state of point, the object has None"),
        (struct("v", POINT), SimpleNamespace(x=1), r"field v\.y: SimpleNamespace has no attribute y"),
        (struct("v", KEY, length=1), [SimpleNamespace(low=1, high=-1)], r"field v\[0\]\.high: expected a whole number"),
        (queue("v", POINT), 5, "expected a list of elements"),
        (queue("v", POINT), [point(0, 0), point(0, -1)], r"field v\[1\]\.y: expected"),
        (tree("v", POINT), [1], "expected a dict"),
        (tree("v", POINT), {"a": point(0, 0), 1: point(0, 0)}, "expected whole numbers as keys"),
        (tree("v", POINT), {-1: point(0, 0)}, r"field v\[0\]: expected a whole number from 0"),
        (tree("v", POINT, key=KEY), [1], "expected pairs of key and value"),
        (pointers("v", u8, length=2), [None], "expected 2 elements, the object has 1"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(field: Field, value: object, message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        Description("d", fields=[field]).save(SimpleNamespace(v=value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [-1, "3", None, 2.0])
def test_a_count_must_be_a_number_of_elements(count: object) -> None:
    description = Description("d", fields=[u8("v", length="count")])
    with pytest.raises(DeviceError, match=r"field v.*: expected a count of elements"):
        description.load(SimpleNamespace(count=count), b"\x00")
