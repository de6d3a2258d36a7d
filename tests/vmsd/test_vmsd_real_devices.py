"""Real devices, declared in Python: the same bytes and the same JSON as in the streams they were recorded in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import SimpleNamespace

import pytest

from migpool.vmsd import fields
from migpool.vmsd.access import Record
from migpool.vmsd.description import Description
from migpool.vmsd.fields import buffer, equal, i32, i64, struct, temporary, timer, u8, u32, u64, unused
from migpool.vmsd.steps import Field
from migpool_plugins.vmsd.capture import CapturedSection
from migpool_plugins.vmsd.device import CapturedDevice
from tests.support.vmsd_captures import NAMES, captured, section


@dataclass
class HpetTimer:
    tn: int = 0
    config: int = 0
    cmp: int = 0
    fsb: int = 0
    period: int = 0
    wrap_flag: int = 0
    qemu_timer: int | None = None


@dataclass
class Hpet:
    config: int = 0
    isr: int = 0
    hpet_counter: int = 0
    num_timers_save: int = 0
    timer: list[HpetTimer] = field(default_factory=list)


HPET_TIMER = Description(
    "hpet_timer",
    version=1,
    fields=[
        u8("tn"),
        u64("config"),
        u64("cmp"),
        u64("fsb"),
        u64("period"),
        u8("wrap_flag"),
        timer("qemu_timer"),
    ],
)

HPET = Description(
    "hpet",
    version=2,
    minimum_version=1,
    fields=[
        u64("config"),
        u64("isr"),
        u64("hpet_counter"),
        u8("num_timers_save"),
        struct(
            "timer",
            HPET_TIMER,
            length="num_timers_save",
            new=HpetTimer,
        ),
    ],
)


def test_a_real_timer_block_declared_by_hand() -> None:
    found = section("q35-rich", "hpet")
    hpet = Hpet()
    HPET.load(hpet, found.payload, found.version)
    assert len(hpet.timer) == 3
    assert hpet.timer[2] == HpetTimer(tn=2, config=0x00FF_0104_0000_0030, cmp=2**64 - 1)
    data, described = HPET.save_described(hpet)
    assert data == found.payload
    assert described == {key: value for key, value in found.entry.items() if key not in ("name", "instance_id")}


def test_a_real_clock_with_unused_parts_declared_by_hand() -> None:
    clock = Description(
        "mc146818rtc",
        version=3,
        minimum_version=1,
        fields=[
            buffer("cmos_data", 128),
            u8("cmos_index"),
            unused(28),
            timer("periodic_timer"),
            i64("next_periodic_time"),
            unused(24),
            u32("irq_coalesced", since=2),
            u32("period", since=2),
            u64("base_rtc", since=3),
            u64("last_update", since=3),
            i64("offset", since=3),
            timer("update_timer", since=3),
            u64("next_alarm_time", since=3),
        ],
    )
    found = section("q35-rich", "mc146818rtc")
    state = SimpleNamespace()
    clock.load(state, found.payload)
    assert state.periodic_timer is None
    assert clock.save(state) == found.payload
    assert clock.describe(state)["fields"] == found.entry["fields"]


def test_a_field_equal_at_both_ends_in_a_real_bus() -> None:
    bus = Description("PCIBUS", fields=[equal(i32, "nirq"), i32("irq_count", length="nirq")])
    found = section("q35-rich", "PCIBUS")
    nirq = int.from_bytes(found.payload[:4], "big")
    state = SimpleNamespace(nirq=nirq)
    bus.load(state, found.payload)
    assert bus.save(state) == found.payload
    assert bus.describe(state)["fields"] == found.entry["fields"]


# ------------------------------------------- every captured device, its declaration made from the stream's JSON

SCALARS = {
    "bool": fields.boolean,
    "timer": fields.timer,
    **{f"int{bits}": kind for bits, kind in zip((8, 16, 32, 64), (fields.i8, fields.i16, i32, i64), strict=True)},
    **{f"uint{bits}": kind for bits, kind in zip((8, 16, 32, 64), (u8, fields.u16, u32, u64), strict=True)},
}


def attribute(name: str) -> str:
    """An attribute for a name of the JSON, which may be no identifier."""
    return "f_" + "".join(letter if letter.isalnum() else "_" for letter in name)


def declared(entry: Mapping[str, object], *, varies: bool = False) -> Description:
    """The declaration of what the JSON describes; as one whose elements may differ, if ``varies``."""
    entries, parts = entry["fields"], entry.get("subsections", [])
    assert isinstance(entries, list)
    assert isinstance(parts, list)
    groups = [list(same) for _, same in groupby(entries, lambda each: each["name"])]
    made = [declared_field(same, varies and same is groups[0]) for same in groups]
    name, version = entry["vmsd_name"], entry["version"]
    assert isinstance(name, str)
    assert isinstance(version, int)
    return Description(name, version=version, fields=made, subsections=[declared(part) for part in parts])


def declared_field(entries: Sequence[Mapping[str, object]], varies: bool) -> Field:
    first = entries[0]
    name, kind, size, length = (first.get(key) for key in ("name", "type", "size", "array_len"))
    assert isinstance(name, str)
    assert isinstance(kind, str)
    assert isinstance(size, int)
    assert length is None or isinstance(length, int)
    place = attribute(name)
    when = (lambda *_: True) if varies else None
    inner = first.get("struct")
    if isinstance(inner, dict):
        length = length if len(entries) == 1 else len(entries)
        return struct(name, declared(inner, varies="index" in first), length=length, attribute=place, when=when)
    if kind == "tmp":
        return temporary(declared(first), new=lambda parent: parent.f_tmp)
    if kind == "int32 le":
        return fields.not_above(name, attribute=place, when=when)
    if kind.endswith("equal"):
        return equal(SCALARS[kind.removesuffix(" equal")], name, attribute=place, when=when)
    if kind in SCALARS:
        return SCALARS[kind](name, length=length, attribute=place, when=when)
    return buffer(name, size, kind=kind, attribute=place, when=when)


def as_object(value: object) -> object:
    """The values of a record, as an object of the declaration's attributes."""
    if isinstance(value, list):
        return [as_object(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = SimpleNamespace()
    for name, inner in value.items():
        if (isinstance(inner, dict) and "/" in name) or name == "apic_sipi":
            vars(made).update(vars(as_object(inner)))
        else:
            setattr(made, attribute(name), as_object(inner))
    return made


DESCRIBED = [found for name in NAMES for found in captured(name) if "vmsd_name" in found.entry]


@pytest.mark.parametrize("found", DESCRIBED, ids=lambda found: f"{found.name}-{found.instance_id}")
def test_a_declaration_of_any_captured_device_is_the_captured_one(found: CapturedSection) -> None:
    description = declared(found.entry)
    record: Record | None = CapturedDevice(found, "source").state
    held = as_object(record)
    data, described = description.save_described(held)
    assert data == found.payload
    assert described == {key: value for key, value in found.entry.items() if key not in ("name", "instance_id")}
    assert description.measure(data + b"\x7e", held) == len(data)
    before = repr(held)
    description.load(held, data)
    assert repr(held) == before
    assert description.save(held) == data
