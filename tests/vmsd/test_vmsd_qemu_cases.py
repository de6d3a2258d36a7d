"""The cases of QEMU's own unit tests of VMState: the same descriptions and values, and their bytes.

One test for each of ``/vmstate/...``: simple, versioned, field_exists, array/ptr, qtailq, gtree, qlist, tmp_struct. The
bytes are facts about the format, written down here in another form. Each payload is also cut at every byte, and must be
refused then.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from migpool.device import DeviceError
from migpool.vmsd.description import Description
from migpool.vmsd.fields import (
    boolean,
    i8,
    i16,
    i32,
    i64,
    linked_list,
    pointers,
    queue,
    struct,
    temporary,
    tree,
    u8,
    u16,
    u32,
    u64,
)
from tests.support.described_cases import there_and_back


def ns(**values: object) -> SimpleNamespace:
    return SimpleNamespace(**values)


PRIMITIVE = Description(
    "simple/primitive",
    version=1,
    minimum_version=1,
    fields=[
        *(boolean("b_1"), boolean("b_2"), u8("u8_1"), u16("u16_1"), u32("u32_1"), u64("u64_1")),
        *(i8("i8_1"), i8("i8_2"), i16("i16_1"), i16("i16_2"), i32("i32_1"), i32("i32_2"), i64("i64_1"), i64("i64_2")),
    ],
)


def test_simple_primitive() -> None:
    state = ns(
        **dict(
            zip(
                ("b_1", "b_2", "u8_1", "u16_1", "u32_1", "u64_1"), (True, False, 130, 512, 70000, 12121212), strict=True
            )
        ),
        **dict(
            zip(("i8_1", "i8_2", "i16_1", "i16_2", "i32_1", "i32_2"), (65, -65, 512, -512, 70000, -70000), strict=True)
        ),
        i64_1=12121212,
        i64_2=-12121212,
    )
    there_and_back(
        PRIMITIVE,
        state,
        "01 00 82 0200 00011170 0000000000b8f47c 41 bf 0200 fe00 00011170 fffeee90 0000000000b8f47c ffffffffff470b84",
        ns(),
    )


def test_simple_array() -> None:
    description = Description("simple/array", version=1, minimum_version=1, fields=[u16("u16_1", length=3)])
    there_and_back(description, ns(u16_1=[0x42, 0x43, 0x44]), "0042 0043 0044", ns())


VERSIONED = Description(
    "test/versioned",
    version=2,
    minimum_version=1,
    fields=[u32("a"), u32("b", since=2), u32("c"), u64("d"), u32("e", since=2), u64("f", since=2)],
)


def test_versioned_load_v1_leaves_newer_fields_alone() -> None:
    state = ns(b=200, e=500, f=600)
    VERSIONED.load(state, bytes.fromhex("0000000a 0000001e 0000000000000028"), 1)
    assert state == ns(a=10, b=200, c=30, d=40, e=500, f=600)


def test_versioned_load_v2() -> None:
    data = "0000000a 00000014 0000001e 0000000000000028 00000032 000000000000003c"
    there_and_back(VERSIONED, ns(a=10, b=20, c=30, d=40, e=50, f=60), data, ns())


def not_skipped(state: SimpleNamespace, _version: int) -> bool:
    return not state.skip_c_e


SKIPPING = Description(
    "test/skip",
    version=2,
    minimum_version=1,
    fields=[
        *(u32("a"), u32("b"), u32("c", when=not_skipped), u64("d"), u32("e", when=not_skipped)),
        u64("f", since=2),
    ],
)


@pytest.mark.parametrize(
    ("skip", "data"),
    [
        (False, "00000001 00000002 00000003 0000000000000004 00000005 0000000000000006"),
        (True, "00000001 00000002 0000000000000004 0000000000000006"),
    ],
)
def test_field_exists_save_and_load(skip: bool, data: str) -> None:
    state = ns(a=1, b=2, c=3, d=4, e=5, f=6, skip_c_e=skip)
    there_and_back(SKIPPING, state, data, ns(skip_c_e=skip, c=3, e=5))


TRIVIAL = Description("test/tst", version=1, minimum_version=1, fields=[i32("i")])


@pytest.mark.parametrize(
    ("there", "data"),
    [
        ((True, True, True, True), "00000000 00000001 00000002 00000003"),
        ((True, False, True, True), "00000000 30 00000002 00000003"),
    ],
)
def test_array_ptr_to_structs_and_to_numbers(there: tuple[bool, ...], data: str) -> None:
    structs = Description("test/arps", version=1, minimum_version=1, fields=[pointers("ar", TRIVIAL, length=4)])
    full = ns(ar=[ns(i=at) if is_there else None for at, is_there in enumerate(there)])
    there_and_back(structs, full, data, ns(ar=[ns(i=9) if is_there else None for is_there in there]))
    numbers = Description("test/arps", version=1, minimum_version=1, fields=[pointers("ar", i32, length=4)])
    values = ns(ar=[at if is_there else None for at, is_there in enumerate(there)])
    there_and_back(numbers, values, data, ns(ar=[42 if is_there else None for is_there in there]))


@pytest.mark.parametrize(
    ("there", "data"),
    [
        ((True, True, True, True), "31 00000000 31 00000001 31 00000002 31 00000003"),
        ((True, False, True, True), "31 00000000 30 31 00000002 31 00000003"),
        ((False, False, False, False), "30 30 30 30"),
    ],
)
def test_array_ptr_that_loading_allocates(there: tuple[bool, ...], data: str) -> None:
    description = Description(
        "test/arps", version=1, fields=[u8("ar_size"), pointers("ar", TRIVIAL, length="ar_size", allocate=True)]
    )
    full = ns(ar_size=4, ar=[ns(i=at) if is_there else None for at, is_there in enumerate(there)])
    there_and_back(description, full, "04" + data, ns())


def test_qtailq() -> None:
    element = Description("test/queue-element", version=1, minimum_version=1, fields=[boolean("b"), u8("u8")])
    description = Description(
        "test/queue", version=1, minimum_version=1, fields=[i16("i16"), queue("q", element), i32("i32")]
    )
    state = ns(i16=-512, i32=70000, q=[ns(b=True, u8=130), ns(b=False, u8=65)])
    there_and_back(description, state, "fe00 01 01 82 01 00 41 00 00011170", ns())


INTERVAL = Description("interval", version=1, minimum_version=1, fields=[u64("low"), u64("high")])
MAPPING = Description("mapping", version=1, minimum_version=1, fields=[u64("phys_addr"), u32("flags")])


def make_mappings(domain: SimpleNamespace) -> None:
    domain.mappings = []


def make_domains(iommu: SimpleNamespace) -> None:
    iommu.domains = {}


DOMAIN = Description(
    "domain",
    version=1,
    minimum_version=1,
    pre_load=make_mappings,
    fields=[i32("id"), tree("mappings", MAPPING, key=INTERVAL)],
)
IOMMU = Description(
    "iommu", version=1, minimum_version=1, pre_load=make_domains, fields=[i32("id"), tree("domains", DOMAIN)]
)
FIRST = ns(
    id=6,
    mappings=[
        (ns(low=0x1000, high=0x1FFF), ns(phys_addr=0xA000, flags=1)),
        (ns(low=0x4000, high=0x4FFF), ns(phys_addr=0xE0000, flags=2)),
    ],
)
FIRST_DATA = (
    "00000006 00000002"
    "01 0000000000001000 0000000000001fff 000000000000a000 00000001"
    "01 0000000000004000 0000000000004fff 00000000000e0000 00000002"
    "00"
)


def test_gtree_of_structures() -> None:
    there_and_back(DOMAIN, FIRST, FIRST_DATA, ns())


def test_gtree_of_trees_by_number() -> None:
    second = ns(id=5, mappings=[(ns(low=0x1000000, high=0x1FFFFFF), ns(phys_addr=0xF000000, flags=3))])
    data = (
        "00000007 00000002"
        "01 0000000000000005"
        "00000005 00000001 01 0000000001000000 0000000001ffffff 000000000f000000 00000003 00"
        f"01 0000000000000006 {FIRST_DATA} 00"
    )
    there_and_back(IOMMU, ns(id=7, domains={6: FIRST, 5: second}), data, ns())


def test_qlist() -> None:
    element = Description("test/queue list", version=1, minimum_version=1, fields=[u32("id")])
    description = Description(
        "test/container/qlist", version=1, minimum_version=1, fields=[u32("id"), linked_list("list", element)]
    )
    state = ns(id=1, list=[ns(id=0xA), ns(id=0xB00), ns(id=0xC0000), ns(id=0xD000000)])
    there_and_back(description, state, "00000001 01 0000000a 01 00000b00 01 000c0000 01 0d000000 00", ns())


class Difference:
    """What stands in the stream for ``b``; and it has a part of the parent in it, too."""

    def __init__(self, parent: SimpleNamespace) -> None:
        self.parent = parent
        self.diff = 0

    def compute(self) -> None:
        self.diff = self.parent.b - self.parent.a

    def take_apart(self, version: int) -> None:
        assert version == 0
        self.parent.b = self.parent.a + self.diff


def test_tmp_struct() -> None:
    back = Description("test/tmp_child_parent", fields=[u64("f")])
    child = Description(
        "test/tmp_child",
        pre_save=Difference.compute,
        post_load=Difference.take_apart,
        fields=[i64("diff"), struct("parent", back)],
    )
    description = Description("test/with_tmp", version=1, fields=[u32("a"), u64("d"), temporary(child, new=Difference)])
    there_and_back(
        description,
        ns(a=2, b=4, d=1, f=8),
        "00000002 0000000000000001 0000000000000002 0000000000000008",
        ns(b=0, f=0),
    )


def test_a_version_before_the_first_is_refused() -> None:
    with pytest.raises(DeviceError, match="the state has version 0, this description reads from 1 on"):
        PRIMITIVE.load(ns(), bytes(47), 0)
