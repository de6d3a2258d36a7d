"""The description at the end of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import ProtocolError
from migpool.wire.stream import eof, vm_description
from migpool.wire.vmdesc import Description, DeviceDescription, Field, Layout, find, parse
from tests.support.described_lengths import NAMES, capture
from tests.support.made_streams import short_text as short
from tests.support.wire_bytes import emit_description


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_description_is_found_parsed_and_written_again_byte_for_byte(name: str) -> None:
    stream = capture(name)
    at, text = find(stream)
    assert stream[at] == 6
    description = parse(text)
    assert emit_description(description) == bytes(text)
    assert description.page_size == 4096


def all_fields(layout: Layout) -> Iterator[Field]:
    """Also those of nested structures and subsections."""
    for field in layout.fields:
        yield field
        if field.struct is not None:
            yield from all_fields(field.struct)
    for subsection in layout.subsections:
        yield from all_fields(subsection)


def test_all_shapes_of_the_recordings_are_understood() -> None:
    devices = {device.name: device for device in parse(find(capture("none"))[1]).devices}
    assert devices["slirp"] == DeviceDescription("slirp", 0, None, 131)
    assert devices["timer"].layout == Layout(
        "timer",
        2,
        (
            Field("cpu_ticks_offset", "int64", 8),
            Field("unused", "unused_buffer", 8),
            Field("cpu_clock_offset", "int64", 8),
        ),
    )
    rich = json.loads(bytes(find(capture("q35-rich"))[1]))
    parsed = parse(find(capture("q35-rich"))[1])
    assert [device.name for device in parsed.devices] == [device["name"] for device in rich["devices"]]
    assert any(device.layout and device.layout.subsections for device in parsed.devices)
    fields = [field for device in parsed.devices if device.layout for field in all_fields(device.layout)]
    assert any(field.array_len and field.struct for field in fields)
    assert any(field.index is not None for field in fields)
    assert any(field.inline and field.type == "tmp" for field in fields)


small = st.integers(0, 2**64 - 1)
plain = st.builds(Field, short, short, small, st.none() | small, st.none() | small)


def around(layouts: st.SearchStrategy[Layout]) -> st.SearchStrategy[Layout]:
    """Layouts that hold these as structures and subsections."""
    structs = st.builds(Field, short, st.just("struct"), small, st.none(), st.none(), layouts, st.booleans())
    fields = st.lists(plain | structs, max_size=2).map(tuple)
    return st.builds(Layout, short, small, fields, st.lists(layouts, max_size=1).map(tuple))


layouts = st.recursive(st.builds(Layout, short, small, st.lists(plain, max_size=2).map(tuple)), around, max_leaves=4)
devices = st.builds(DeviceDescription, short, small, layouts) | st.builds(
    DeviceDescription, short, small, st.none(), small
)


@given(st.builds(Description, st.lists(devices, max_size=3).map(tuple), small, st.none() | layouts))
def test_a_description_comes_back_as_it_was(description: Description) -> None:
    assert parse(emit_description(description)) == description


def test_unknown_keys_are_passed_over() -> None:
    text = b'{"page_size": 1, "new": [1], "devices": [{"name": "a", "instance_id": 0, "size": 3, "more": {}}]}'
    assert parse(text) == Description((DeviceDescription("a", 0, None, 3),), 1)


@given(st.binary(max_size=80), st.integers(0, 3000))
def test_a_description_is_found_behind_anything(before: bytes, length: int) -> None:
    text = b"{" + b" " * length + b"}"
    stream = before + eof() + b"".join(vm_description(text))
    at, found = find(stream)
    assert (at, bytes(found)) == (len(before) + 1, text)


def test_an_empty_description_is_found() -> None:
    at, text = find(b"\0\x06\0\0\0\0")
    assert (at, bytes(text)) == (1, b"")


@pytest.mark.parametrize("length", [6, 0x0606, 0x060606])
def test_a_description_is_found_when_its_length_has_the_bytes_of_its_type(length: int) -> None:
    stream = b"\x06\0\0\0" + b"".join(vm_description(b"[" + b"1" * (length - 2) + b"]"))
    assert find(stream)[0] == 4


@pytest.mark.parametrize("stream", [b"", b"\0", b"\x06\0\0\0", b"\x06\0\0\0\3{}", b"\0\x06\0\0\0\2{} "])
def test_a_stream_without_a_description_is_an_error(stream: bytes) -> None:
    with pytest.raises(ProtocolError, match="JSON to the end of the stream; found none"):
        find(stream)


def test_the_search_has_a_limit() -> None:
    stream = b"".join(vm_description(b"{" + b" " * 200_000 + b"}"))
    assert find(stream, limit=200_002)[0] == 0
    with pytest.raises(ProtocolError, match="found none"):
        find(stream, limit=200_001)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "JSON: Expecting value"),
        (b"{", "at byte 101: JSON"),
        (b"\xff\xfe\xff", "JSON: "),
        (b"[" * 100_000, "JSON with some levels of nesting, found hundreds"),
        (b'{"page_size": ' + b"9" * 5000 + b"}", "JSON: "),
        (b"[]", "an object for the description, found list"),
        (b"{}", "a list as 'devices' of the description, found nothing"),
        (b'{"page_size": true, "devices": []}', "a number as 'page_size' of the description, found True"),
        (b'{"page_size": -1, "devices": []}', "found -1"),
        (b'{"page_size": 1, "devices": [3]}', "an object for devices[0] of the description, found int"),
        (b'{"page_size": 1, "devices": [{"name": 3}]}', "a text as 'name' of devices[0] of the description, found 3"),
        (b'{"page_size": 1, "devices": [{"name": "a", "instance_id": 0}]}', "a number as 'size' of devices[0]"),
        (
            b'{"page_size": 1, "devices": [{"name": "a", "instance_id": 0, "vmsd_name": "a", "version": 1, '
            b'"fields": [{"name": "f", "type": "struct", "size": 1, "struct": []}]}]}',
            "an object for 'struct' of fields[0] of devices[0] of the description, found list",
        ),
    ],
)
def test_an_error_says_what_is_wrong_in_one_line(text: bytes, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(text, 100)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_structures_nested_too_deep_are_an_error() -> None:
    text = '{"vmsd_name": "", "version": 0, "fields": [], "subsections": [' * 500 + "]}" * 500
    with pytest.raises(ProtocolError, match="levels of nesting"):
        parse(f'{{"page_size": 1, "devices": [], "configuration": {text}}}'.encode())


def test_what_crossed_over_the_multifd_channels_is_a_list_of_its_own() -> None:
    devices = [{"name": "a", "instance_id": 1, "size": 7, "fields": []}]
    read = parse(json.dumps({"page_size": 4096, "devices": [], "multifd_devices": devices}).encode())
    assert read == Description((), over_multifd=(DeviceDescription("a", 1, size=7),))
    with pytest.raises(ProtocolError, match="a list as 'multifd_devices'"):
        parse(json.dumps({"page_size": 4096, "devices": [], "multifd_devices": 7}).encode())
