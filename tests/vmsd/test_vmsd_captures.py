"""Every device section of four recorded streams, decoded by the description in the stream and encoded again."""

from __future__ import annotations

import json

import pytest

from migpool.errors import DescriptionError
from migpool.vmsd.description import Description
from migpool.vmsd.jsonform import section_structure, stream_description
from migpool_plugins.vmsd.capture import (
    CapturedSection,
    machine_names,
    read_machine,
    read_stream,
    sections,
)
from migpool_plugins.vmsd.device import CapturedDevice
from tests.support.vmsd_captures import NAMES, captured, decoded_independently, section, stream_path

EVERY = [(name, each) for name in NAMES for each in captured(name)]
IDS = [f"{name}-{each.name}-{each.instance_id}" for name, each in EVERY]


def test_the_streams_hold_as_many_devices_as_their_descriptions_list() -> None:
    assert [len(captured(name)) for name in NAMES] == [3, 21, 29, 39]


@pytest.mark.parametrize(("name", "found"), EVERY, ids=IDS)
def test_a_section_is_decoded_as_the_independent_decoder_did(name: str, found: CapturedSection) -> None:
    device = CapturedDevice(found, "source")
    assert device.show() == decoded_independently(name)[f"{found.name} ({found.section_id})"]


@pytest.mark.parametrize("found", [found for _, found in EVERY], ids=IDS)
def test_a_section_is_encoded_as_it_was_and_describes_itself_as_it_did(found: CapturedSection) -> None:
    source, destination = CapturedDevice(found, "source"), CapturedDevice(found, "destination")
    data = source.save_config()
    assert data == found.payload
    destination.load_config(data)
    assert destination.state == source.state
    assert destination.save_config() == data
    assert destination.fingerprint() == source.fingerprint()
    described = {key: value for key, value in found.entry.items() if key not in ("name", "instance_id")}
    assert source.describe_config() == described
    assert json.loads(json.dumps(destination.describe_config())) == described


@pytest.mark.parametrize("found", [found for _, found in EVERY], ids=IDS)
def test_a_section_is_measured_from_the_bytes_so_far(found: CapturedSection) -> None:
    device = CapturedDevice(found, "destination")
    length = len(found.payload)
    stream = memoryview(found.payload + b"\x7e\x00\x00\x00\x07\x05\xff")
    for end in {0, 1, length // 2, max(0, length - 1)} - {length}:
        assert device.measure_config(stream[:end]) is None
    assert device.measure_config(stream[: length + 1]) == length
    assert device.measure_config(stream) == length
    assert device.state is None


def test_values_are_numbers_bytes_and_records() -> None:
    state = CapturedDevice(section("q35-rich", "hpet"), "source").state
    assert state is not None
    assert state["num_timers_save"] == 3
    timers = state["timer"]
    assert isinstance(timers, list)
    assert timers[1]["tn"] == 1
    assert timers[1]["qemu_timer"] is None
    cmos = CapturedDevice(section("q35-rich", "mc146818rtc"), "source").state
    assert cmos is not None
    assert isinstance(cmos["cmos_data"], bytes)
    assert len(cmos["cmos_data"]) == 128
    assert isinstance(cmos["update_timer"], int)


def test_the_machines_that_come_with_the_plug_in_are_the_recorded_ones() -> None:
    assert machine_names() == ["microvm-smp2", "q35-min", "q35-rich"]
    for name in machine_names():
        assert read_machine(name) == list(captured(name))


def test_an_unknown_machine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DescriptionError, match="no machine 'q36'; known: microvm-smp2, q35-min, q35-rich"):
        read_machine("q36")


def test_a_stream_cut_short_has_no_description() -> None:
    data = stream_path("none").read_bytes()
    for end in (0, 1, 8, 300, len(data) - 1):
        with pytest.raises(DescriptionError, match="no description at its end"):
            sections(data[:end], "short.mig")


def test_a_description_that_does_not_fit_its_stream_is_refused() -> None:
    data = stream_path("none").read_bytes()
    damaged = data.replace(b"\x04\x00\x00\x00\x01\x05slirp", b"\x04\x00\x00\x00\x01\x05slurp")
    with pytest.raises(DescriptionError, match=r"expected the section of 'slirp' with 131 bytes at byte 126"):
        sections(damaged, "damaged.mig")


def test_the_length_of_the_description_may_contain_its_own_type() -> None:
    end, described = stream_description(stream_path("none").read_bytes(), "none.mig")
    text = json.dumps(described).encode().ljust(0x0606)
    data = stream_path("none").read_bytes()[: end + 1] + b"\x06" + len(text).to_bytes(4, "big") + text
    assert sections(data, "padded.mig") == list(captured("none"))


def test_a_file_that_cannot_be_read_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "empty.mig").touch()
    for path in (folder / "missing.mig", folder, folder / "empty.mig"):
        with pytest.raises(DescriptionError, match=str(path)):
            read_stream(path)


def entry(*fields: object, **more: object) -> dict[str, object]:
    return {"name": "d", "vmsd_name": "d", "version": 1, "fields": list(fields), **more}


def field(name: str, kind: str, size: int, **more: object) -> dict[str, object]:
    return {"name": name, "type": kind, "size": size, **more}


def test_null_pointers_split_an_array_into_runs() -> None:
    described = entry(
        field("p", "nullptr", 1, array_len=2), field("p", "uint16", 2, array_len=2), field("p", "nullptr", 1)
    )
    description = Description.from_structure(section_structure(described, 1))
    state: dict[str, object] = {}
    description.load(state, bytes.fromhex("30 30 0001 3030 30"))
    assert state == {"p": [None, None, 1, 0x3030, None]}
    assert description.save(state) == bytes.fromhex("30 30 0001 3030 30")
    assert description.describe(state) == {key: value for key, value in described.items() if key != "name"}


def test_elements_without_index_under_one_name_are_one_array() -> None:
    described = entry(field("p", "uint8", 1), field("p", "uint8", 1))
    description = Description.from_structure(section_structure(described, 1))
    state: dict[str, object] = {}
    description.load(state, b"\x01\x02")
    assert state == {"p": [1, 2]}
    assert description.describe(state)["fields"] == described["fields"]


def test_an_empty_buffer_in_an_array_takes_no_bytes() -> None:
    described = entry(field("p", "buffer", 0), field("p", "buffer", 2))
    description = Description.from_structure(section_structure(described, 1))
    state: dict[str, object] = {}
    description.load(state, b"ab")
    assert state == {"p": [b"", b"ab"]}
    assert description.save(state) == b"ab"


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"name": "d"}, "device d: expected a list of objects as 'fields'"),
        ({"name": 7, "fields": []}, "a device: expected 'name' as str"),
        (entry(field("a", "uint32", 8)), "field a: the size of uint32 is given as 8, its parts make 4 bytes"),
        (entry(field("a", "struct", 4)), "field a: a struct without its description"),
        (entry(field("a", "uint8", 1, array_len=0)), "field a: expected an array_len of 1 or more, it is 0"),
        (entry(field("a", "uint8", 1, index=1)), "field a: expected index 0, it is 1"),
        (entry(field("a", "buffer", -1)), "field a: expected 'size' from 0 to 4294967295, it is -1"),
        (entry(field("a", "bool", 1), field("b", "bool", 1), field("a", "bool", 1)), "the name a occurs twice"),
        (entry(subsections=[entry(vmsd_name="e/x")]), "subsection e/x does not begin with its parent's name d"),
        (entry(field("a\nb", "bool", 1)), r"expected 'name' without control characters, it is 'a\\nb'"),
        (entry(field("a", "uint8", 1), field("", "buffer", 66)), "device d: a field has no name"),
        (entry(vmsd_name=""), "expected a name of 1 to 255 ASCII characters"),
        (entry(version=True), "expected 'version' as int, it is True"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(described: dict[str, object], message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        section_structure(described, 1)


def test_a_description_without_end_is_refused() -> None:
    inner = entry()
    for _ in range(2000):
        inner = entry(field("a", "struct", 0, struct=inner))
    with pytest.raises(DescriptionError, match="nested too deeply"):
        section_structure(inner, 1)
