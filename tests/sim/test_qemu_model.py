"""QEMU's own threads in virtual time: downtimes that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migpool.sim.qemu import qemu_downtime
from migpool.sim.world import BUFFER, Profile, World

RAM = Profile(size=4096, read=0.5, save_config=0.1, load_config=0.2, channel=0.05, ram=True)
SECTION = Profile(way="section", save_config=1.0, load_config=2.0, config_size=100)
VFIO = Profile(size=4, read=4.0, write=2.0, save_config=0.25, load_config=1.0, config_size=8, stop=0.5)


def world(*devices: Profile, **more: object) -> World:
    whole = World(
        devices=devices, savers=1, loaders=1, channels=4, channel_rate=1e18, link_rate=1e18, chunk=1, rooms=9, base=10.0
    )
    return replace(whole, **more)  # type: ignore[arg-type]


def test_small_sections_are_loaded_when_all_have_been_saved() -> None:
    assert qemu_downtime(world(*[SECTION] * 3), transfer=False) == pytest.approx(10 + 3 * 1.0 + 3 * 2.0)


def test_a_full_buffer_is_sent_at_once() -> None:
    large = replace(SECTION, config_size=BUFFER)
    assert qemu_downtime(world(*[large] * 3), transfer=False) == pytest.approx(10 + 1.0 + 3 * 2.0)
    # The second fills the buffer, the third waits for the end.
    half = replace(SECTION, config_size=BUFFER // 2, load_config=0.5)
    assert qemu_downtime(world(*[half] * 3), transfer=False) == pytest.approx(10 + 3 * 1.0 + 0.5)


def test_a_section_that_is_cut_is_loaded_when_its_end_has_come() -> None:
    cut = replace(SECTION, config_size=BUFFER * 3 // 4, load_config=0.0)
    assert qemu_downtime(world(cut, replace(cut, load_config=3.0)), transfer=False) == pytest.approx(10 + 2.0 + 3.0)
    assert qemu_downtime(world(replace(cut, load_config=3.0), cut), transfer=False) == pytest.approx(10 + 2.0 + 3.0)


@pytest.mark.parametrize(("channels", "spent"), [(1, 0.05), (4, 0.2), (8, 0.4)])
def test_each_channel_costs_at_the_end_of_rams_round(channels: int, spent: float) -> None:
    found = qemu_downtime(world(RAM, SECTION, channels=channels), transfer=False)
    assert found == pytest.approx(10 + 0.5 + 0.1 + spent + 1.0 + 2.0)


def test_without_transfer_devices_are_saved_and_loaded_in_turn() -> None:
    # Four chunks of a byte are gathered like everything else; the configs come last.
    expected = 10 + 2 * 0.5 + 2 * 4.0 + 2 * 0.25 + 2 * 2.0 + 2 * 1.0
    assert qemu_downtime(world(VFIO, VFIO), transfer=False) == pytest.approx(expected)
    # Chunks that fill the buffer are loaded while the next one is read.
    large = replace(VFIO, size=4 * BUFFER)
    expected = 10 + 2 * 0.5 + 2 * 4.0 + 2 * 0.25 + 2 * 1.0
    assert qemu_downtime(world(large, large, chunk=BUFFER), transfer=False) == pytest.approx(expected)


def test_with_transfer_each_has_a_thread_and_the_configs_queue_for_the_big_lock() -> None:
    # The last chunk is written half a second after it was read, but the config comes a quarter after the read.
    assert qemu_downtime(world(VFIO, VFIO), transfer=True) == pytest.approx(10 + 2 * 0.5 + 4.0 + 0.5 + 2 * 1.0)
    assert qemu_downtime(world(VFIO), transfer=True) == pytest.approx(10 + 0.5 + 4.0 + 0.5 + 1.0)


def test_a_config_waits_while_the_destinations_own_thread_loads() -> None:
    slow = replace(SECTION, save_config=0.1, load_config=5.0)
    # Sections are saved once the device has been: the config takes the lock first.
    assert qemu_downtime(world(VFIO, slow), transfer=True) == pytest.approx(10 + 0.5 + 4.25 + 0.1 + 5.0 + 1.0)


def test_rams_round_and_the_devices_threads_overlap() -> None:
    ram = replace(RAM, read=3.0, channel=0.0, save_config=0.0, load_config=0.0)
    assert qemu_downtime(world(ram, VFIO), transfer=True) == pytest.approx(10 + 0.5 + 4.0 + 0.5 + 1.0)
    assert qemu_downtime(world(ram, VFIO), transfer=False) == pytest.approx(10 + 0.5 + 3.0 + 4.0 + 2.0 + 0.25 + 1.0)


def test_the_link_counts() -> None:
    large = replace(SECTION, config_size=2 * BUFFER)
    found = qemu_downtime(world(large, link_rate=float(BUFFER)), transfer=False)
    assert found == pytest.approx(10 + 1.0 + 2.0 + 2.0)


def test_more_channels_than_devices_change_nothing_but_rams_end() -> None:
    few, many = (qemu_downtime(world(VFIO, VFIO, channels=count), transfer=True) for count in (2, 64))
    assert few == many


@pytest.mark.parametrize("transfer", [False, True])
def test_processors_bound_what_threads_do_at_once(transfer: bool) -> None:
    devices = [VFIO] * 4
    free = qemu_downtime(world(*devices), transfer=transfer)
    enough = qemu_downtime(world(*devices, processors=5), transfer=transfer)
    two, one = (qemu_downtime(world(*devices, processors=count), transfer=transfer) for count in (2, 1))
    assert enough == free
    if not transfer:  # one thread at each host
        assert one == two == free
        return
    saves, loads = 4 * (4.0 + 0.25), 4 * (2.0 + 1.0)
    assert 10 + 4 * 0.5 + saves + 1.0 <= one <= 10 + 4 * 0.5 + saves + loads
    assert free < two < one
