"""Every kind of field: the bytes of a value, and the value of these bytes. The bytes are written by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from migpool.vmsd.description import Description
from migpool.vmsd.fields import (
    OFF,
    bitmap,
    boolean,
    buffer,
    byte_array,
    descriptor,
    double,
    i8,
    i16,
    i32,
    i64,
    linked_list,
    pointers,
    queue,
    struct,
    timer,
    tree,
    u8,
    u16,
    u32,
    u64,
    vstruct,
)
from migpool.vmsd.steps import Field

POINT = Description("point", version=3, minimum_version=1, fields=[u8("x"), u16("y", since=3)])
KEY = Description("key", fields=[u16("low"), u16("high")])


def point(x: int, y: int) -> SimpleNamespace:
    return SimpleNamespace(x=x, y=y)


GOLDEN = [
    (boolean("v"), True, "01", True),
    (boolean("v"), False, "00", False),
    (u8("v"), 0xAB, "ab", "0xab"),
    (u16("v"), 0xABCD, "abcd", "0xabcd"),
    (u32("v"), 1, "00000001", "0x00000001"),
    (u64("v"), 2**64 - 2, "fffffffffffffffe", "0xfffffffffffffffe"),
    (i8("v"), -1, "ff", "0xff (-1)"),
    (i16("v"), -2, "fffe", "0xfffe (-2)"),
    (i32("v"), 2**31 - 1, "7fffffff", "0x7fffffff"),
    (i64("v"), -(2**63), "8000000000000000", "0x8000000000000000 (-9223372036854775808)"),
    (timer("v"), 1_000_000_000, "000000003b9aca00", "00 00 00 00 3b 9a ca 00"),
    (timer("v"), None, "ffffffffffffffff", "ff ff ff ff ff ff ff ff"),
    (double("v"), 1.0, "3ff0000000000000", "3f f0 00 00 00 00 00 00"),
    (double("v"), -0.0, "8000000000000000", "80 00 00 00 00 00 00 00"),
    (bitmap("v", 1), 1, "0000000000000001", "00 00 00 00 00 00 00 01"),
    (
        bitmap("v", 65),
        1 << 64 | 2,
        "00000000000000020000000000000001",
        "00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 01",
    ),
    (buffer("v", 3), b"\x01\x02\x03", "010203", "01 02 03"),
    (buffer("v", 0), b"", "", ""),
    (u16("v", length=3), [1, 2, 0xFFFF], "00010002ffff", ["0x0001", "0x0002", "0xffff"]),
    (u16("v", length=0), [], "", []),
    (boolean("v", length=2), [True, False], "0100", [True, False]),
    (
        timer("v", length=2),
        [None, 0],
        "ffffffffffffffff0000000000000000",
        ["ff ff ff ff ff ff ff ff", "00 00 00 00 00 00 00 00"],
    ),
    (double("v", length=1), [2.5], "4004000000000000", ["40 04 00 00 00 00 00 00"]),
    (descriptor("v"), 7, "00000007", "0x00000007"),
    (descriptor("v"), -1, "ffffffff", "0xffffffff (-1)"),
    (byte_array("v"), b"", "00000000", "00 00 00 00"),
    (byte_array("v"), b"abc", "00000003616263", "00 00 00 03 61 62 63"),
    (
        pointers("v", u16, length=3, allocate=True),
        [1, None, 0x3031],
        "31000130313031",
        ["0x0001", "nullptr", "0x3031"],
    ),
    (
        pointers("v", timer, length=4, allocate=True),
        [OFF, None, 2**64 - 2, 0],
        "31ffffffffffffffff3031fffffffffffffffe310000000000000000",
        ["ff ff ff ff ff ff ff ff", "nullptr", "ff ff ff ff ff ff ff fe", "00 00 00 00 00 00 00 00"],
    ),
    (
        pointers("v", POINT, length=2, allocate=True),
        [None, point(1, 2)],
        "3031010002",
        ["nullptr", {"x": "0x01", "y": "0x0002"}],
    ),
    (struct("v", POINT), point(1, 2), "010002", {"x": "0x01", "y": "0x0002"}),
    (
        struct("v", KEY, length=2),
        [SimpleNamespace(low=1, high=2), SimpleNamespace(low=3, high=4)],
        "0001000200030004",
        [{"low": "0x0001", "high": "0x0002"}, {"low": "0x0003", "high": "0x0004"}],
    ),
    (vstruct("v", POINT, version=1), SimpleNamespace(x=5), "05", {"x": "0x05"}),
    (vstruct("v", POINT, version=3), point(5, 6), "050006", {"x": "0x05", "y": "0x0006"}),
    (queue("v", POINT), [], "00", []),
    (
        queue("v", POINT),
        [point(1, 2), point(3, 4)],
        "010100020103000400",
        [{"x": "0x01", "y": "0x0002"}, {"x": "0x03", "y": "0x0004"}],
    ),
    (linked_list("v", POINT), [point(9, 8)], "0109000800", [{"x": "0x09", "y": "0x0008"}]),
    (tree("v", POINT), {}, "0000000000", []),
    (
        tree("v", POINT),
        {7: point(1, 2), 2**40: point(3, 4)},
        "0000000201000000000000000701000201000001000000000003000400",
        [
            {"key": "0x0000000000000007", "value": {"x": "0x01", "y": "0x0002"}},
            {"key": "0x0000010000000000", "value": {"x": "0x03", "y": "0x0004"}},
        ],
    ),
    (
        tree("v", POINT, key=KEY),
        [(SimpleNamespace(low=1, high=2), point(3, 4))],
        "00000001010001000203000400",
        [{"key": {"low": "0x0001", "high": "0x0002"}, "value": {"x": "0x03", "y": "0x0004"}}],
    ),
]


@pytest.mark.parametrize(("field", "value", "data", "shown"), GOLDEN, ids=[str(index) for index in range(len(GOLDEN))])
def test_a_value_has_these_bytes(field: Field, value: object, data: str, shown: object) -> None:
    description = Description("d", fields=[field])
    holder = SimpleNamespace(v=value)
    assert description.save(holder) == bytes.fromhex(data)
    loaded = SimpleNamespace()
    description.load(loaded, bytes.fromhex(data))
    assert loaded == holder
    assert description.show(loaded) == {"v": shown}
    assert description.measure(bytes.fromhex(data), SimpleNamespace()) == len(data) // 2
