"""The plug-in ``vmsd``: the devices of a captured machine at both ends of a migration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import EntryPoint

import pytest

from migpool.device import DeviceContext, DeviceError, OptionValue, Side
from migpool.errors import UsageError
from migpool_plugins.vmsd import CapturedDevice, devices
from tests.support.vmsd_captures import captured, device, section, stream_path


def made(side: Side, options: Mapping[str, OptionValue]) -> list[CapturedDevice]:
    found = devices(DeviceContext(side, options))
    assert all(isinstance(each, CapturedDevice) for each in found)
    return [each for each in found if isinstance(each, CapturedDevice)]


def test_the_entry_point_is_found_under_its_name() -> None:
    entry = EntryPoint("vmsd", "migpool_plugins.vmsd:devices", "migpool.devices")
    assert entry.load() is devices


def test_a_machine_moves_from_one_end_to_the_other() -> None:
    sources, destinations = made("source", {"machine": "q35-rich"}), made("destination", {"machine": "q35-rich"})
    assert len(sources) == len(destinations) == 39
    for source, destination in zip(sources, destinations, strict=True):
        identity = (source.idstr, source.instance_id, source.version)
        assert identity == (destination.idstr, destination.instance_id, destination.version)
        assert source.exact_config()
        assert not source.iterable
        assert destination.state is None
        assert destination.fingerprint() is None
        data = source.save_config()
        destination.check_version(source.version)
        stream = memoryview(data + b"\x7e\x00\x00\x00\x01")
        assert destination.measure_config(stream) == len(data)
        destination.load_config(data)
        assert destination.fingerprint() == source.fingerprint() != None  # noqa: E711
        assert destination.describe_config() == source.describe_config()
        for each in (source, destination):
            each.close()


def test_changed_values_arrive() -> None:
    (source,) = made("source", {"machine": "q35-rich", "include": "hpet"})
    (destination,) = made("destination", {"machine": "q35-rich", "include": "hpet"})
    assert source.state is not None
    source.state["hpet_counter"] = 0x1122334455667788
    destination.load_config(source.save_config())
    assert destination.state is not None
    assert destination.state["hpet_counter"] == 0x1122334455667788


def test_a_recorded_stream_is_read_where_it_is() -> None:
    found = made("source", {"stream": str(stream_path("none"))})
    assert [(each.idstr, each.version) for each in found] == [("timer", 2), ("slirp", 4), ("globalstate", 1)]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"include": "i8259"}, ["i8259", "i8259"]),
        ({"include": ["hpet", "*/e1000e"]}, ["hpet", "0000:00:01.0/e1000e"]),
        ({"include": "cpu*", "exclude": ["cpu_common"]}, ["cpu", "cpu"]),
    ],
)
def test_patterns_choose_devices(options: dict[str, OptionValue], names: list[str]) -> None:
    assert [each.idstr for each in made("source", {"machine": "q35-rich", **options})] == names


@pytest.mark.parametrize(
    ("options", "count", "message"),
    [
        ({}, 1, "give either machine .one of microvm-smp2, q35-min, q35-rich. or stream"),
        ({"machine": "q35-rich", "stream": "x.mig"}, 1, "give either machine"),
        ({"machine": 7}, 1, "give either machine"),
        ({"machine": "pc"}, 1, "no machine 'pc'; known"),
        ({"machine": "q35-min", "includes": "*"}, 1, "vmsd option includes is unknown: use config_lock, config_"),
        ({"machine": "q35-min", "copies": 0}, 1, "copies is 0: use a whole number from 1 to 4096"),
        ({"machine": "q35-min", "config_lock": "small"}, 1, 'config_lock is \'small\': use "big", "own" or "none"'),
        ({"machine": "q35-min", "config_time": "soon"}, 1, "config_time is 'soon': use seconds from 0 on"),
        ({"machine": "q35-min", "include": [7]}, 1, "option include is .7.: use a pattern or a list of patterns"),
        ({"machine": "q35-min", "exclude": "*"}, 1, "leave no device"),
        ({"machine": "q35-min"}, 2, "count is 2"),
        ({"stream": "/nowhere/x.mig"}, 1, "/nowhere/x.mig: the stream cannot be read: No such file"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, OptionValue], count: int, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        devices(DeviceContext("source", options, count))
    assert "\n" not in str(caught.value)


def test_copies_are_devices_of_their_own_with_free_instance_ids() -> None:
    found = made("source", {"machine": "q35-rich", "copies": 3})
    assert len(found) == 3 * 39
    assert len({(one.idstr, one.instance_id) for one in found}) == 3 * 39
    whole = {(one.idstr, one.instance_id): one.save_config() for one in made("source", {"machine": "q35-rich"})}
    assert {key: one.save_config() for one in found if (key := (one.idstr, one.instance_id)) in whole} == whole
    first, second, _ = found[:3]
    assert (first.idstr, first.save_config()) == (second.idstr, second.save_config())
    (there,) = [one for one in made("destination", {"machine": "q35-rich", "copies": 2}) if one.instance_id == 1][:1]
    there.load_config(second.save_config())
    assert there.fingerprint() == second.fingerprint()


def test_the_lock_and_the_time_of_a_config_are_what_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, OptionValue] = {"machine": "q35-rich", "include": "hpet", "config_lock": "own"}
    (own,) = made("source", options)
    assert (own.save_lock, own.load_lock) == ("own", "own")
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    (slow,) = made("source", {**options, "config_time": "20ms"})
    slow.save_config()
    assert slept == [0.02]


def test_only_the_captured_version_can_be_loaded() -> None:
    destination = device("q35-rich", "hpet", "destination")
    destination.check_version(2)
    for version in (1, 3):
        with pytest.raises(DeviceError, match=f"the state has version {version}, the captured description"):
            destination.check_version(version)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (0, "hpet: field config at byte 0 of the payload: expected 8 bytes, 0 bytes are left"),
        (9, "hpet: field isr at byte 8 of the payload: expected 8 bytes, 1 bytes are left"),
        (24, "hpet: field num_timers_save at byte 24 of the payload: expected 1 bytes, 0 bytes are left"),
        (70, "hpet: field timer at byte 25 of the payload: expected 3 elements of at least 42 bytes each"),
    ],
)
def test_a_truncated_payload_names_the_field_and_the_byte(length: int, message: str) -> None:
    data = section("q35-rich", "hpet").payload
    destination = device("q35-rich", "hpet", "destination")
    with pytest.raises(DeviceError, match=message):
        destination.load_config(data[:length])
    assert destination.state is None


def test_an_overlong_payload_is_refused() -> None:
    data = section("q35-rich", "hpet").payload
    with pytest.raises(DeviceError, match="hpet at byte 151 of the payload: expected the end of the payload, 2 bytes"):
        device("q35-rich", "hpet", "destination").load_config(data + b"\x00\x00")


def test_a_damaged_truth_value_names_its_path() -> None:
    found = section("q35-rich", "0000:00:1f.2/ich9_ahci")
    damaged = bytearray(found.payload)
    damaged[276 + 644 + 644 - 1] = 0x80
    with pytest.raises(DeviceError, match=r"ich9_ahci: field ahci\.dev\[1\]\.ncq_tfs\[31\]\.halt at byte 1563"):
        device("q35-rich", "0000:00:1f.2/ich9_ahci", "destination").load_config(bytes(damaged))


def test_a_subsection_of_the_capture_may_be_absent() -> None:
    source, destination = device("q35-rich", "fw_cfg", "source"), device("q35-rich", "fw_cfg", "destination")
    assert source.state is not None
    del source.state["fw_cfg/dma"]
    data = source.save_config()
    assert b"fw_cfg/acpi_mr" in data
    assert b"fw_cfg/dma" not in data
    assert destination.measure_config(memoryview(data + b"\x7e")) == len(data)
    destination.load_config(data)
    assert destination.state == source.state
    described = destination.describe_config()
    assert described is not None
    parts = described["subsections"]
    assert isinstance(parts, list)
    assert [part["vmsd_name"] for part in parts] == ["fw_cfg/acpi_mr"]


def test_subsections_are_encoded_in_the_order_in_which_they_came() -> None:
    source, destination = device("q35-rich", "fw_cfg", "source"), device("q35-rich", "fw_cfg", "destination")
    assert source.state is not None
    source.state["fw_cfg/dma"] = source.state.pop("fw_cfg/dma")
    data = source.save_config()
    assert data.index(b"fw_cfg/acpi_mr") < data.index(b"fw_cfg/dma")
    destination.load_config(data)
    assert destination.save_config() == data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            (b"fw_cfg/dma", b"fw_cfg/dmb"),
            "subsection 'fw_cfg/dmb' is not known here; known: fw_cfg/dma, fw_cfg/acpi_mr",
        ),
        ((b"fw_cfg/dma\x00\x00\x00\x00", b"fw_cfg/dma\x00\x00\x00\x01"), "fw_cfg/dma at byte .* has version 1"),
        ((b"\x05\x0afw_cfg/dma", b"\x05\x0afx_cfg/dma"), "expected the end of the payload"),
    ],
)
def test_a_wrong_subsection_is_refused(change: tuple[bytes, bytes], message: str) -> None:
    data = section("q35-rich", "fw_cfg").payload.replace(*change)
    with pytest.raises(DeviceError, match=message):
        device("q35-rich", "fw_cfg", "destination").load_config(data)


def test_a_subsection_that_comes_twice_is_refused() -> None:
    data = section("q35-rich", "apic", 1).payload
    begin = data.index(b"\x05\x09apic_sipi")
    with pytest.raises(DeviceError, match="subsection apic_sipi has come twice"):
        device("q35-rich", "apic", "destination", 1).load_config(data + data[begin:])


def test_measuring_waits_where_a_subsection_could_begin() -> None:
    found = section("q35-rich", "apic", 1)
    destination = device("q35-rich", "apic", "destination", 1)
    begin = found.payload.index(b"\x05\x09apic_sipi")
    for end in range(begin, len(found.payload) + 1):
        assert destination.measure_config(memoryview(found.payload)[:end]) is None
    assert destination.measure_config(memoryview(found.payload[:begin] + b"\x7e")) == begin


def test_a_section_of_the_old_style_keeps_its_exact_bytes() -> None:
    source, destination = device("none", "slirp", "source"), device("none", "slirp", "destination")
    assert source.describe_config() == {"size": 131, "fields": [{"name": "data", "size": 131, "type": "buffer"}]}
    data = bytes(range(131))
    assert destination.measure_config(memoryview(data)[:130]) is None
    assert destination.measure_config(memoryview(data)) == 131
    destination.load_config(data)
    assert destination.save_config() == data
    with pytest.raises(DeviceError, match="slirp: field data at byte 0 of the payload: expected 131 bytes"):
        destination.load_config(data[:-1])


def test_a_value_that_does_not_fit_is_refused_when_saving() -> None:
    source = device("q35-rich", "hpet", "source")
    assert source.state is not None
    timers = source.state["timer"]
    assert isinstance(timers, list)
    timers[2]["wrap_flag"] = 256
    with pytest.raises(DeviceError, match=r"hpet: field timer\[2\].wrap_flag: expected a whole number from 0 to 255"):
        source.save_config()
    del timers[2]["wrap_flag"]
    with pytest.raises(DeviceError, match=r"hpet: field timer\[2\].wrap_flag: the record has no value for it"):
        source.save_config()
    del timers[2]
    with pytest.raises(DeviceError, match="hpet: field timer: expected 3 elements, the object has 2"):
        source.save_config()


def test_without_a_state_there_is_nothing_to_save() -> None:
    destination = device("none", "timer", "destination")
    assert destination.describe_config() is None
    with pytest.raises(DeviceError, match="no state has been loaded yet"):
        destination.save_config()


def test_after_an_abort_every_call_fails() -> None:
    source, destination = device("none", "timer", "source"), device("none", "timer", "destination")
    for each in (source, destination):
        each.abort()
        each.abort()
    with pytest.raises(DeviceError, match="aborted"):
        source.save_config()
    with pytest.raises(DeviceError, match="aborted"):
        destination.load_config(captured("none")[0].payload)
    with pytest.raises(DeviceError, match="aborted"):
        destination.measure_config(memoryview(b""))
