"""Damaged and random bytes: they load, exactly, or raise the one error there is for them; and they cost no memory."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.device import DeviceError
from migpool.errors import DescriptionError
from migpool.vmsd.description import Description
from migpool.vmsd.fields import (
    bitmap,
    boolean,
    buffer,
    byte_array,
    linked_list,
    pointers,
    queue,
    struct,
    timer,
    tree,
    u8,
    u16,
    u32,
    unused,
)
from migpool.vmsd.jsonform import stream_description
from migpool.vmsd.layout import from_json
from migpool_plugins.vmsd.capture import CapturedSection, sections
from migpool_plugins.vmsd.device import CapturedDevice
from tests.support.vmsd_captures import captured, section, stream_path

SMALL = [found for name in ("none", "q35-rich") for found in captured(name) if len(found.payload) < 6000]
MEBIBYTE = 2**20


def refused(call: Callable[[], object]) -> bool:
    """Whether the call fails with an error meant for users, of one line; any other error passes through."""
    try:
        call()
    except (DeviceError, DescriptionError) as error:
        message = str(error)
    else:
        return False
    assert message
    assert "\n" not in message
    return True


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes with a few of them changed, removed, added or moved."""
    data = bytearray(original)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                data[at:at] = data[draw(st.integers(0, len(data))) :][:40]
    return bytes(data)


@st.composite
def damaged_section(draw: st.DrawFn) -> tuple[CapturedSection, bytes]:
    """A captured section, and its damaged payload."""
    found = draw(st.sampled_from(SMALL))
    return found, draw(damaged(found.payload))


@given(damaged_section())
def test_a_damaged_payload_is_refused_or_kept_exactly(case: tuple[CapturedSection, bytes]) -> None:
    found, data = case
    device = CapturedDevice(found, "destination")
    if refused(lambda: device.load_config(data)):
        assert device.state is None
    else:
        assert device.save_config() == data
        assert device.measure_config(memoryview(data + b"\x7e")) == len(data)
        device.show()
    lengths: list[int | None] = []
    if not refused(lambda: lengths.append(device.measure_config(memoryview(data)))):
        assert lengths[0] is None or 0 <= lengths[0] <= len(data)


ITEM = Description("item", fields=[u8("used"), u16("values", length="used"), boolean("last")])
MAYBE = Description("maybe", fields=[u8("x", when=lambda state, _: getattr(state, "on", False))])
EVERYTHING = Description(
    "everything",
    fields=[
        u8("few"),
        struct("items", ITEM, length="few"),
        queue("queue", ITEM),
        linked_list("list", ITEM),
        tree("tree", ITEM),
        tree("pairs", ITEM, key=ITEM),
        u32("many"),
        buffer("raw", "many"),
        pointers("pointers", ITEM, length=2),
        bitmap("bits", 70),
        bitmap("bits_of_few", "few"),
        byte_array("bytes"),
        pointers("made", ITEM, length="few", allocate=True),
        unused(2, length="few"),
        u16("part", start=1, length=1),
        timer("timers", length="few"),
        u8("more", when=lambda state, _: state.few % 2 == 1),
        struct("maybe", MAYBE, length="few"),
    ],
    subsections=[Description("everything/s", fields=[queue("extra", ITEM)])],
)


def everything() -> SimpleNamespace:
    def item(*values: int) -> SimpleNamespace:
        return SimpleNamespace(used=len(values), values=list(values), last=True)

    return SimpleNamespace(
        few=1,
        items=[item(1, 2)],
        queue=[item(), item(3)],
        list=[item(4)],
        tree={5: item(5)},
        pairs=[(item(6), item(7))],
        many=3,
        raw=b"raw",
        pointers=[item(8), None],
        bits=2**69,
        bits_of_few=1,
        bytes=b"bytes",
        made=[item(11)],
        part=[1, 2, 3],
        timers=[None],
        more=9,
        maybe=[SimpleNamespace()],
        extra=[item(10)],
    )


def empty() -> SimpleNamespace:
    return SimpleNamespace(pointers=[SimpleNamespace(), None], part=[0, 0, 0])


@given(damaged(EVERYTHING.save(everything())) | st.binary(max_size=200))
def test_damaged_state_of_every_kind_is_refused_or_loaded(data: bytes) -> None:
    state = empty()
    if not refused(lambda: EVERYTHING.load(state, data)):
        again = empty()
        EVERYTHING.load(again, EVERYTHING.save(state))
        assert EVERYTHING.show(again) == EVERYTHING.show(state)
    scratch = empty()
    lengths: list[int | None] = []
    if not refused(lambda: lengths.append(EVERYTHING.measure(data, scratch))):
        assert lengths[0] is None or 0 <= lengths[0] <= len(data)
    assert scratch == empty()


@pytest.mark.parametrize(
    "description",
    [
        Description("d", fields=[u32("n"), u8("x", length="n")]),
        Description("d", fields=[u32("n"), timer("x", length="n")]),
        Description("d", fields=[u32("n"), buffer("x", "n")]),
        Description("d", fields=[u32("n"), struct("x", ITEM, length="n")]),
        Description("d", fields=[u32("n"), struct("x", MAYBE, length="n")]),
        Description("d", fields=[u32("n"), pointers("x", ITEM, length="n")]),
        Description("d", fields=[u32("n"), pointers("x", ITEM, length="n", allocate=True)]),
        Description("d", fields=[u32("n"), unused(4, length="n")]),
        Description("d", fields=[u32("n"), bitmap("x", "n")]),
        Description("d", fields=[byte_array("x")]),
        Description("d", fields=[tree("x", ITEM)]),
        Description("d", fields=[struct("x", Description("nothing"), length=2**32)]),
    ],
    ids=[
        "u8",
        "timer",
        "buffer",
        "struct",
        "maybe-empty",
        "pointers",
        "made",
        "unused",
        "bitmap",
        "bytes",
        "tree",
        "empty",
    ],
)
def test_a_count_is_checked_before_anything_is_made_for_it(description: Description) -> None:
    data = b"\xff\xff\xff\xff" + bytes(64)
    tracemalloc.start()
    try:
        with pytest.raises(DeviceError):
            description.load(SimpleNamespace(x=[None]), data)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()


def test_empty_elements_in_many_arrays_share_one_limit() -> None:
    inner = Description("inner", fields=[u16("n"), struct("x", MAYBE, length="n")])
    description = Description("d", fields=[queue("q", inner)])
    tracemalloc.start()
    try:
        with pytest.raises(DeviceError, match="elements that may be empty"):
            description.load(SimpleNamespace(), b"\x01\x40\x00" * 4096)
        assert tracemalloc.get_traced_memory()[1] < 64 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_an_announced_length_in_a_stream_s_json_makes_nothing_either() -> None:
    entry = copy.deepcopy(dict(section("none", "slirp").entry))
    entry["fields"] = [{"name": "data", "size": 1, "type": "uint8", "array_len": 2**32 - 1}]
    huge = CapturedSection("slirp", 0, 4, 1, b"", entry)
    tracemalloc.start()
    try:
        device = CapturedDevice(huge, "destination")
        with pytest.raises(DeviceError, match="expected 4294967295 elements"):
            device.load_config(bytes(100))
        assert device.measure_config(memoryview(bytes(100))) is None
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60), st.integers(0, 1355), st.integers(0, 8))
def test_a_damaged_stream_is_refused_or_read(patch: bytes, at: int, cut: int) -> None:
    data = bytearray(stream_path("none").read_bytes())
    data[at : at + cut] = patch
    refused(lambda: encode_all(bytes(data)))


def encode_all(stream: bytes) -> None:
    """Decode and encode every device of a stream."""
    for each in sections(stream, "damaged.mig"):
        CapturedDevice(each, "source").save_config()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**33) | st.floats(allow_nan=False) | st.sampled_from(["", "d", "d/x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "type", "size", "struct", "fields", "array_len"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.data())
def test_a_damaged_description_is_refused_or_used(data: st.DataObject) -> None:
    document = copy.deepcopy(dict(stream_description(stream_path("microvm-smp2").read_bytes(), "m")[1]))
    devices = document["devices"]
    assert isinstance(devices, list)
    place: object = document
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        below = place[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(JSON)
            break
        place = below
    text = json.dumps(document).encode()
    original = stream_path("microvm-smp2").read_bytes()
    end = stream_description(original, "m")[0]
    refused(lambda: from_json(document, "damaged.json"))
    refused(lambda: encode_all(original[: end + 1] + b"\x06" + len(text).to_bytes(4, "big") + text))
