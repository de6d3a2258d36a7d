"""A device's state leaves the source's device process and arrives in the destination's, whole and in order."""

from __future__ import annotations

import lzma
import zlib

import pytest

from migpool.device import DeviceError, OptionValue, Pending
from tests.support.vfio.vfio_rig import CHUNK, OpenSide, Saver


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 3 * CHUNK + 17},
        {"size": 1},
        {"size": "5MiB", "chunk": "1MiB"},
        {"size": "2MiB", "chunk": "2MiB", "config_size": "64KiB"},
        {"chunk": 1000, "config_size": 0},
    ],
    ids=["tiny", "odd tail", "one byte", "large chunks", "chunk over the buffer", "small chunks"],
)
def test_four_devices_arrive_with_equal_fingerprints(
    options: dict[str, OptionValue], open_side: OpenSide, save: Saver
) -> None:
    sources = open_side("source", options, count=4)
    destinations = open_side("destination", options, count=4)
    for source, destination in zip(sources, destinations, strict=True):
        destination.load_setup(source.save_setup())
    prints = set()
    for source, destination in zip(sources, destinations, strict=True):
        for chunk in save(source):
            destination.load_state(memoryview(chunk))
        destination.load_config(source.save_config())
        destination.start()
        destination.verify()
        assert source.fingerprint() == destination.fingerprint()
        prints.add(source.fingerprint())
    assert len(prints) == 4


def test_names_are_pci_paths_that_count_up_and_agree_on_both_sides(open_side: OpenSide) -> None:
    names = ["0000:01:00.0/vfio", "0000:02:00.0/vfio", "0000:03:00.0/vfio"]
    for devices in (open_side("source", count=3), open_side("destination", count=3)):
        assert [device.idstr for device in devices] == names
        assert all(device.iterable and (device.instance_id, device.version) == (0, 1) for device in devices)
    assert [device.idstr for device in open_side("source", count=2, bus=254)] == [
        "0000:fe:00.0/vfio",
        "0000:ff:00.0/vfio",
    ]


def test_a_read_returns_at_most_the_buffer_and_at_most_a_chunk(open_side: OpenSide, buffer: memoryview) -> None:
    (device,) = open_side("source", size=2 * CHUNK + 5)
    device.stop()
    assert device.save_state(buffer[:1000]) == 1000
    assert device.save_state(buffer) == CHUNK
    assert device.save_state(buffer) == CHUNK - 1000 + 5
    assert [device.save_state(buffer), device.save_state(buffer)] == [0, 0]


def test_the_state_cannot_be_compressed_and_depends_on_seed_and_device(open_side: OpenSide, save: Saver) -> None:
    states = [
        b"".join(save(device))
        for seed in (1, 2)
        for device in open_side("source", count=2, seed=seed, size="768KiB", chunk="256KiB")
    ]
    assert len(set(states)) == 4
    assert len(zlib.compress(states[0], 6)) > len(states[0])
    assert len(lzma.compress(states[0], preset=1)) > len(states[0])


def test_after_resume_the_same_state_can_be_saved_again(open_side: OpenSide, save: Saver, buffer: memoryview) -> None:
    (device,) = open_side("source")
    device.save_setup()
    device.stop()
    assert device.save_state(buffer) == CHUNK
    device.resume()
    assert device.pending() == Pending(0, 4 * CHUNK)
    with pytest.raises(DeviceError, match="not been stopped"):
        device.save_state(buffer)

    (destination,) = open_side("destination")
    destination.load_setup(device.save_setup())
    for chunk in save(device):
        destination.load_state(memoryview(chunk))
    destination.load_config(device.save_config())
    destination.start()
    assert device.fingerprint() == destination.fingerprint()


def test_resume_of_a_device_that_was_never_stopped_is_harmless(open_side: OpenSide, save: Saver) -> None:
    (device,) = open_side("source")
    device.resume()
    device.save_setup()
    device.resume()
    assert len(save(device)) == 4


def test_calls_out_of_order_are_refused(open_side: OpenSide, buffer: memoryview, tiny_chunks: list[bytes]) -> None:
    (source,) = open_side("source")
    (destination,) = open_side("destination")
    with pytest.raises(DeviceError, match="after the device has been stopped: the device is in RUNNING"):
        source.save_config()
    source.stop()
    with pytest.raises(DeviceError, match="has been stopped before"):
        source.stop()
    source.save_state(buffer)
    with pytest.raises(DeviceError, match=r"after all state, but [0-9]+ of 262144 bytes were read"):
        source.save_config()
    with pytest.raises(DeviceError, match="has not been set up to load"):
        destination.load_state(memoryview(tiny_chunks[0]))
    destination.load_setup(b"")
    with pytest.raises(DeviceError, match="cannot run before its config has been loaded"):
        destination.start()


def test_a_source_with_other_sizes_is_refused_at_set_up(open_side: OpenSide) -> None:
    (source,) = open_side("source", size="128KiB")
    (destination,) = open_side("destination")
    with pytest.raises(DeviceError, match="size is 131072 at the source and 262144 here: give both sides the same"):
        destination.load_setup(source.save_setup())
    with pytest.raises(DeviceError, match="not an emulated VFIO device"):
        destination.load_setup(b"\x00\x01")


def test_pending_shrinks_as_state_is_read(open_side: OpenSide, buffer: memoryview) -> None:
    (device,) = open_side("source")
    assert device.pending() == Pending(precopy=0, stopcopy=4 * CHUNK)
    device.stop()
    device.save_state(buffer)
    assert device.pending() == Pending(precopy=0, stopcopy=3 * CHUNK)


def test_costs_are_the_sums_of_the_profile(open_side: OpenSide) -> None:
    options: dict[str, OptionValue] = {
        "size": 2500,
        "chunk": 1000,
        "read_rate": 1000,
        "read_latency": "10ms",
        "write_rate": 500.0,
        "write_latency": 0.02,
        "stop_time": "1ms",
        "save_config_time": "2ms",
        "load_config_time": "3ms",
        "shared_lock": "write",
    }
    (source,) = open_side("source", options)
    (destination,) = open_side("destination", options)
    costs = source.costs()
    assert (costs.stop, costs.save_config, costs.load_config) == (0.001, 0.002, 0.003)
    assert (costs.read, costs.write_chunk, costs.write) == pytest.approx((2.53, 2.02, 5.06))
    assert costs.shared_lock == ""
    assert destination.costs().shared_lock == "0000:01:00.0/vfio shared lock"


def test_the_data_descriptor_is_given_out_only_by_a_pollable_source(open_side: OpenSide) -> None:
    (pollable,) = open_side("source", pollable=True)
    (plain,) = open_side("source")
    (destination,) = open_side("destination", pollable=True)
    for device in (pollable, plain):
        device.save_setup()
        device.stop()
    destination.load_setup(b"")
    assert plain.poll_fd() is None
    assert destination.poll_fd() is None
    assert pollable.poll_fd() is not None
