"""The newer jobs in virtual time, against times that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migpool.errors import UsageError
from migpool.sim.simulate import Profile, World, downtime, simulate

FAST = 1e18
DESCRIBED = Profile(way="described", save_config=1.0, load_config=2.0, save_lock="none", load_lock="none")
STATE = Profile(size=4, read=4.0, load_config=0.0)


def world(*devices: Profile, workers: int = 9, **more: object) -> World:
    usual: dict[str, object] = {"channels": 8, "channel_rate": FAST, "link_rate": FAST, "chunk": 1, "rooms": 99}
    return World(devices=devices, **{"savers": workers, "loaders": workers, **usual, **more})  # type: ignore[arg-type]


def test_described_devices_are_saved_and_loaded_at_once_without_a_lock() -> None:
    assert downtime(world(*[DESCRIBED] * 3)) == pytest.approx(1 + 2)
    own = replace(DESCRIBED, save_lock="own", load_lock="own")
    assert downtime(world(*[own] * 3)) == pytest.approx(1 + 2)


def test_under_the_big_lock_they_take_turns() -> None:
    big = replace(DESCRIBED, save_lock="big", load_lock="big")
    # The first is loaded while the second is saved.
    assert downtime(world(*[big] * 3)) == pytest.approx(1 + 3 * 2)
    assert downtime(world(*[replace(big, load_lock="none")] * 3)) == pytest.approx(3 * 1 + 2)


def test_python_runs_one_at_a_time_whatever_the_lock() -> None:
    assert downtime(world(*[replace(DESCRIBED, in_python=True)] * 3)) == pytest.approx(1 + 3 * 2)


def test_one_worker_takes_up_described_devices_in_the_order_of_loading() -> None:
    assert downtime(world(*[DESCRIBED] * 3, workers=1)) == pytest.approx(1 + 3 * 2)
    # The first of the machine must be loaded last; the single worker does not wait for ever.
    first = replace(DESCRIBED, after=(1,))
    assert downtime(world(first, DESCRIBED, workers=1)) == pytest.approx(1 + 2 + 2)


def test_who_must_be_loaded_after_another_waits_for_it() -> None:
    chain = [replace(DESCRIBED, after=(number - 1,) if number else ()) for number in range(3)]
    assert downtime(world(*chain)) == pytest.approx(1 + 3 * 2)


def test_a_circle_of_devices_is_refused() -> None:
    with pytest.raises(UsageError, match="can be loaded first"):
        downtime(world(replace(DESCRIBED, after=(1,)), replace(DESCRIBED, after=(0,))))


def test_sections_go_one_after_the_other_whatever_they_declare() -> None:
    section = replace(DESCRIBED, way="section")
    assert downtime(world(*[section] * 3)) == pytest.approx(1 + 3 * 2)
    assert downtime(world(*[section] * 3, STATE)) == pytest.approx(1 + 3 * 2)


def test_a_config_longer_than_a_chunk_goes_in_parts() -> None:
    # A version of four bytes and a config of six, in parts of two, at two seconds a part over one channel.
    long = replace(DESCRIBED, config_size=6)
    assert downtime(world(long, chunk=2, channel_rate=1.0)) == pytest.approx(1 + 5 * 2 + 2)


def test_two_jobs_of_a_device_read_while_they_send() -> None:
    one = world(STATE, channel_rate=1.0)
    assert downtime(one) == pytest.approx(4 * (1 + 1))
    two = replace(STATE, lanes=2)
    assert downtime(world(two, channel_rate=1.0)) == pytest.approx(4 + 1)
    # With a worker alone they cannot.
    assert downtime(world(two, channel_rate=1.0, workers=1)) == pytest.approx(4 * (1 + 1))


def test_reads_stay_one_at_a_time_however_many_jobs_there_are() -> None:
    assert downtime(world(replace(STATE, lanes=4))) == pytest.approx(4)
    # A device has room for one chunk until that has been loaded: the other three go together after it.
    assert downtime(world(replace(STATE, lanes=4, read=0.0), channel_rate=1.0)) == pytest.approx(1 + 1)


def test_parts_with_tags_are_read_and_written_by_every_engine() -> None:
    tagged = Profile(size=4, read=4.0, write=8.0, way="tagged")
    # Written at 1, 2 ... and for two seconds each: only the first read is not beside a write.
    assert downtime(world(tagged)) == pytest.approx(1 + 4 * 2)
    # A device has room for one part until that has been loaded: so the first write is beside no other.
    assert downtime(world(replace(tagged, lanes=2))) == pytest.approx(1 + 2 + 2 * 2)
    assert downtime(world(replace(tagged, lanes=4))) == pytest.approx(1 + 2 + 2)
    assert downtime(world(replace(tagged, lanes=4), loaders=1)) == pytest.approx(1 + 4 * 2)
    # A single reader has the others' parts at 3, 4 and 5, once there is room.
    assert downtime(world(replace(tagged, lanes=4), savers=1)) == pytest.approx(5 + 2)


def test_a_slow_channel_lets_chunks_come_early_and_holds_no_part_back() -> None:
    lanes = Profile(size=16, lanes=4)
    more = {"channels": 4, "channel_rate": 1.0, "slow_channel": 8.0}
    ordered = simulate(world(lanes, **more))  # type: ignore[arg-type]
    tagged = simulate(world(replace(lanes, way="tagged"), **more))  # type: ignore[arg-type]
    assert ordered.early > 0
    assert tagged.early == 0
    assert tagged.held < ordered.held


def test_rounds_go_before_the_downtime_and_their_indices_into_it() -> None:
    live = replace(STATE, live=3)
    found = simulate(world(live, live, rounds=2))
    assert found.live == pytest.approx(2 * 3)
    assert found.downtime == pytest.approx(4)
    assert simulate(world(replace(live, lanes=2), rounds=1)).downtime == pytest.approx(4)
    # One worker runs one device's round after the other's.
    assert simulate(world(live, live, rounds=2, workers=1)).live == pytest.approx(2 * 2 * 3)


def test_what_a_wait_costs_besides_is_paid_one_job_at_a_time() -> None:
    idle = replace(DESCRIBED, save_config=0.0, load_config=0.0)
    # Three waits of a save job; two of the load job follow the arrival.
    assert downtime(world(idle, step=1.0, chunk=64)) == pytest.approx(3 + 2)
    # The jobs take turns: their configs are sent at 7, 8 and 9, and six waits follow the first arrival.
    assert downtime(world(*[idle] * 3, step=1.0, chunk=64)) == pytest.approx(7 + 6)


@pytest.mark.parametrize("rooms", [4, 6, 40])
@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_kind_at_once_comes_to_its_end(rooms: int, workers: int) -> None:
    kinds = [
        replace(STATE, lanes=2, live=2),
        Profile(size=5, read=1.0, write=2.0, way="tagged", lanes=3),
        DESCRIBED,
        replace(DESCRIBED, way="section"),
        replace(DESCRIBED, after=(2,)),
    ]
    times = {downtime(world(*kinds, rooms=rooms, workers=workers, rounds=1)) for _ in range(2)}
    assert len(times) == 1
    assert times.pop() >= 4
