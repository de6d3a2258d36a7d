"""Options become device settings, or one line that names the key, what is wrong and what would be right."""

from __future__ import annotations

import pytest

from migpool.device import DeviceContext, DeviceError, OptionValue
from migpool_plugins.vfio.options import DeviceSettings, parse_options
from migpool_plugins.vfio.profiles import PROFILES, DeviceProfile, Fault

MIB = 1 << 20


def parse(count: int = 1, **options: OptionValue) -> list[DeviceSettings]:
    return parse_options(DeviceContext("source", options, count))


def test_without_options_the_profile_is_the_network_function() -> None:
    assert parse() == [DeviceSettings("0000:01:00.0/vfio", PROFILES["network-function"], None, 30.0)]


def test_quantities_are_read_with_their_units() -> None:
    (settings,) = parse(
        size="1.5GiB",
        chunk="512KiB",
        read_rate="400MiB/s",
        write_rate="2 GiB",
        read_latency="100us",
        write_latency="1.5ms",
        stop_time="2s",
        load_config_time=0.07,
        save_config_time=1,
        config_size="100B",
        shared_lock="both",
        pollable=True,
    )
    assert settings.profile == DeviceProfile(
        size=1536 * MIB,
        chunk=512 << 10,
        read_rate=400 * MIB,
        write_rate=2048 * MIB,
        read_latency=1e-4,
        write_latency=1.5e-3,
        stop_time=2.0,
        load_config_time=0.07,
        save_config_time=1.0,
        config_size=100,
        shared_lock="both",
        pollable=True,
        transport="descriptor",
    )


def test_single_devices_override_the_entry_and_may_have_another_profile() -> None:
    plain, slow, storage, last = parse(
        4, size="2MiB", devices=[{}, {"read_rate": "1MiB"}, {"profile": "storage-function", "stop_time": "1ms"}]
    )
    assert plain.profile == last.profile
    assert (slow.profile.read_rate, slow.profile.size) == (MIB, 2 * MIB)
    assert (storage.profile.size, storage.profile.stop_time) == (8 * MIB, 0.001)


def test_a_fault_belongs_to_one_device_of_one_side() -> None:
    table: OptionValue = {"device": 1, "side": "destination", "at": "1MiB", "kind": "stall"}
    destination = parse_options(DeviceContext("destination", {"fault": table}, 2))
    assert [settings.fault for settings in destination] == [None, Fault(MIB, "stall")]
    assert [settings.fault for settings in parse(2, fault=table)] == [None, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sise": 1}, "option sise is unknown: use backend, bus, chunk, config_size"),
        ({"profile": "fast"}, "profile is 'fast': use one of instant, network-function, storage-function, tiny"),
        ({"profile": 3}, "profile is 3: use one of"),
        ({"size": "64MB"}, "size is '64MB': use a whole number of bytes from 0 on, or text with B, KiB, MiB, "),
        ({"size": "much"}, "size is 'much': use a whole number of bytes"),
        ({"size": True}, "size is True: use a whole number of bytes"),
        ({"size": 1.5}, r"size is 1\.5: use a whole number of bytes"),
        ({"size": "0.3B"}, r"size is '0\.3B': use a whole number of bytes"),
        ({"size": -1}, "size is -1: use a whole number of bytes"),
        ({"size": 0}, "size is 0: use 1 to"),
        ({"chunk": "1GiB"}, r"chunk is 1\.07374e\+09: use 1 to"),
        ({"config_size": "1MiB"}, r"config_size is 1\.04858e\+06: use 0 to 65536 bytes"),
        ({"read_rate": -0.5}, r"read_rate is -0\.5: use a whole number of bytes"),
        ({"read_rate": 0.5}, r"read_rate is 0\.5: use 1 to .* or 0 for no limit"),
        ({"write_rate": [1]}, r"write_rate is \[1\]: use a whole number of bytes"),
        ({"stop_time": "5 minutes"}, "stop_time is '5 minutes': use seconds from 0 on, or text with us, ms or s"),
        ({"stop_time": -1}, "stop_time is -1: use seconds from 0 on"),
        ({"stop_time": float("nan")}, "stop_time is nan: use seconds"),
        ({"read_latency": True}, "read_latency is True: use seconds"),
        ({"read_latency": 4000}, "read_latency is 4000: use 0 to 3600 seconds"),
        ({"shared_lock": "reads"}, 'shared_lock is \'reads\': use "", "read", "write" or "both"'),
        ({"shared_lock": 1}, 'shared_lock is 1: use "", "read", "write" or "both"'),
        ({"pollable": "yes"}, "pollable is 'yes': use true or false"),
        ({"bus": 0}, "bus is 0: use a whole number from 1 to 255"),
        ({"bus": 256}, "bus is 256: use a whole number from 1 to 255"),
        ({"bus": "1"}, "bus is '1': use a whole number"),
        ({"time_limit": 0}, r"time_limit is 0: use seconds over 0"),
        ({"devices": "all"}, "devices is 'all': use a list of tables"),
        ({"devices": [1]}, r"devices\[0\] is 1: use a table"),
        ({"devices": [{}, {}, {}]}, "devices has 3 tables for 2 devices"),
        ({"devices": [{"bus": 3}]}, r"devices\[0\]\.bus is unknown: use"),
        ({"devices": [{}, {"size": "x"}]}, r"devices\[1\]\.size is 'x'"),
        ({"devices": [{}, {"size": 0}]}, r"devices\[1\]\.size is 0: use 1 to"),
        ({"fault": "error"}, "fault is 'error': use a table"),
        ({"fault": {"kind": "error", "when": 1}}, r"fault\.when is unknown: use at, "),
        (
            {"fault": {"kind": "error", "device": 2}},
            r"fault\.device is 2: use a whole number from 0 to 1, since",
        ),
        ({"fault": {"kind": "error", "side": "left"}}, r"fault\.side is 'left': use \"source\" or \"destination\""),
        ({"fault": {"kind": "error", "at": "64MiB"}}, r"fault\.at is 67108864: use less than the device's state"),
        ({"fault": {"kind": "fire"}}, r"fault\.kind is 'fire': use \"error\", \"stall\""),
        ({"fault": {}}, r"fault\.kind is None: use"),
        (
            {"fault": {"kind": "short-read", "at": 5, "side": "destination"}},
            r"fault\.kind is 'short-read': use it only",
        ),
    ],
)
def test_a_wrong_option_is_one_line_that_says_what_to_do(options: dict[str, OptionValue], message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        parse(2, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("vfio option")


@pytest.mark.parametrize("count", [0, 4097])
def test_a_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(DeviceError, match=f"count is {count}: use a number from 1 to 4096"):
        parse(count)


def test_devices_beyond_the_last_bus_are_in_the_next_domain() -> None:
    names = [one.idstr for one in parse(600, bus=200)]
    assert len(set(names)) == 600
    assert names[55:57] == ["0000:ff:00.0/vfio", "0001:01:00.0/vfio"]
    assert names[-1] == "0003:22:00.0/vfio"
