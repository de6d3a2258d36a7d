"""Order and credits: the guarantees at the top of ``migpool/flow/window.py``, by number."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import DeviceError, UsageError
from migpool.flow.window import Reassembly, Windows, rooms_for
from tests.support import LONG
from tests.support.explorer import DeadlockError, EveryOrder, World

ORDERS = 4_000 if LONG else 150
"""How many orders of a migration are tried at the most."""

# ---------------------------------------------------------------------- 1 and 2: order


@given(st.integers(1, 40).flatmap(lambda count: st.permutations(range(count))))
def test_chunks_come_out_in_order_whatever_the_order_they_went_in(arrival: list[int]) -> None:
    order: Reassembly[str] = Reassembly()
    out = []
    for index in arrival:
        is_next = order.put(index, f"chunk {index}", index == len(arrival) - 1, limit=len(arrival))
        assert is_next == (index == order.next)
        while (chunk := order.take()) is not None:
            out.append(chunk)
    assert out == [f"chunk {index}" for index in range(len(arrival))]
    assert order.finished
    assert order.missing() == ""


@given(st.integers(1, 20).flatmap(lambda count: st.permutations(range(count))), st.randoms())
def test_who_waits_already_is_given_what_put_and_take_would_give(arrival: list[int], dice: random.Random) -> None:
    order: Reassembly[int] = Reassembly()
    same: Reassembly[int] = Reassembly()
    for index in arrival:
        last = index == len(arrival) - 1
        order.put(index, index, last, limit=len(arrival))
        if dice.random() < 0.7:
            assert same.put_and_take(index, index, last, limit=len(arrival)) == order.take()
        else:
            same.put(index, index, last, limit=len(arrival))
        assert (same.next, same.parked, same.ended) == (order.next, order.parked, order.ended)


@pytest.mark.parametrize("put", [Reassembly.put, Reassembly.put_and_take], ids=["put", "put and take"])
@pytest.mark.parametrize(
    ("before", "index", "last", "limit", "message"),
    [
        pytest.param([(0, False)], 0, False, 9, "twice", id="a parked chunk again"),
        pytest.param([], 9, False, 9, "for 9 chunks: it", id="beyond what was granted"),
        pytest.param([], 0, False, 0, "for 0 chunks: it", id="the next one, not granted"),
        pytest.param([(1, True)], 2, False, 9, "after the last one, 1", id="after the last one"),
        pytest.param([(1, True)], 0, True, 9, "after the last one, 1", id="a second last one"),
        pytest.param([(3, False)], 1, True, 9, "after the last one, 1", id="a last one before others"),
    ],
)
def test_a_chunk_that_must_not_come_is_refused_with_its_index(
    put: Callable[..., object], before: list[tuple[int, bool]], index: int, last: bool, limit: int, message: str
) -> None:
    order: Reassembly[int] = Reassembly()
    for earlier, final in before:
        order.put(earlier, earlier, final, limit)
    with pytest.raises(DeviceError, match=message) as error:
        put(order, index, index, last, limit)
    assert error.value.index is not None


def test_a_chunk_that_was_taken_is_refused_when_it_comes_again() -> None:
    order: Reassembly[int] = Reassembly()
    order.put(0, 0, False, 9)
    order.take()
    with pytest.raises(DeviceError, match="twice"):
        order.put(0, 0, False, 9)


def test_what_is_missing_is_named_with_what_waits_behind_it() -> None:
    order: Reassembly[int] = Reassembly()
    for index in (0, 1, 3, 4, 7):
        order.put(index, index, False, 99)
    assert order.missing() == "chunk 2 has not come, 3 later ones have"


# ---------------------------------------------------------------------- 3 to 5: credits


def test_fewer_rooms_than_devices_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rooms cannot give 4 devices one each"):
        Windows(devices=4, rooms=3)


def test_every_device_opens_with_one_room() -> None:
    windows = Windows(devices=3, rooms=30)
    assert [(grant.device, grant.limit) for grant in windows.opening()] == [(0, 1), (1, 1), (2, 1)]
    assert windows.granted == 3


def test_a_single_active_device_gets_what_idle_ones_do_not_use() -> None:
    windows = Windows(devices=4, rooms=12, ahead=100)
    windows.received(2)
    assert windows.granted == 4, "a window opens when its first chunk has been loaded"
    windows.loaded(2)
    assert windows.granted == 12
    assert windows.limit(2) == 1 + 9  # the three idle ones keep one room each


def test_a_room_that_one_device_gives_back_goes_to_another_that_has_too_few() -> None:
    windows = Windows(2, 9)
    for device in (1, 0):  # the first has taken what was free when the second begins
        windows.received(device)
        windows.loaded(device)
    windows.received(1)
    before = windows.limit(0)
    assert [grant.device for grant in windows.loaded(1)] == [0]
    assert windows.limit(0) > before


def test_what_a_finished_device_held_goes_to_the_others() -> None:
    windows = Windows(devices=2, rooms=8, ahead=100)
    windows.received(0)
    windows.received(1)
    before = windows.limit(1)
    windows.loaded(0)
    windows.received(0)
    windows.loaded(1)
    windows.finished(0)
    widest = 0
    for loaded in range(2, 20):
        windows.received(1)
        windows.loaded(1)
        widest = max(widest, windows.limit(1) - loaded)
    assert widest > 4, "more than half of the rooms"
    assert windows.limit(1) > before


@pytest.mark.parametrize(
    ("rooms", "chunks_a_grant", "left"),
    [(2, 1, 0), (4, 1, 1), (8, 5, 1), (16, 12, 2), (32, 26, 4), (1000, 26, 4)],
)
def test_a_grant_is_for_many_chunks_and_comes_before_the_last_is_used(
    rooms: int, chunks_a_grant: int, left: int
) -> None:
    windows = Windows(1, rooms)
    grants = 0
    least = rooms
    for chunk in range(300):
        ahead = windows.limit(0) - chunk
        assert ahead > 0, "the source may send nothing, and nothing is to be loaded"
        for message in (windows.received(0), windows.loaded(0)):
            if message and chunk:
                grants += 1
                least = min(least, ahead - 1)
    assert grants <= -(-300 // chunks_a_grant)
    assert least == left


def test_a_device_that_stalls_does_not_keep_the_others_from_their_share() -> None:
    windows = Windows(devices=2, rooms=8)
    windows.received(0)
    windows.loaded(0)  # and then nothing more of it
    for _ in range(50):
        windows.received(1)
        windows.loaded(1)
    assert windows.limit(1) - 50 >= 1
    assert windows.granted <= 8


@given(st.data())
def test_never_more_granted_than_there_is_and_never_nothing_for_a_device(data: st.DataObject) -> None:
    devices = data.draw(st.integers(1, 6))
    windows = Windows(devices, data.draw(st.integers(devices, devices * 5)), data.draw(st.integers(1, 8)))
    limits = [1] * devices
    sent = [0] * devices
    loaded = [0] * devices
    finished: set[int] = set()
    for _ in range(data.draw(st.integers(0, 60))):
        able = [d for d in range(devices) if d not in finished and (sent[d] < limits[d] or loaded[d] < sent[d])]
        device = data.draw(st.sampled_from(able)) if able else None
        if device is None:
            break
        may_send, may_load = sent[device] < limits[device], loaded[device] < sent[device]
        if may_send and (not may_load or data.draw(st.booleans())):
            sent[device] += 1
            grants = windows.received(device)
        elif loaded[device] + 1 == sent[device] and data.draw(st.booleans()):
            loaded[device] += 1
            finished.add(device)
            grants = windows.finished(device)
        else:
            loaded[device] += 1
            grants = windows.loaded(device)
        for grant in grants:
            assert grant.limit > limits[grant.device], "a grant never lowers, and is never said twice"
            limits[grant.device] = grant.limit
        assert windows.granted <= windows.rooms
        for other in set(range(devices)) - finished:
            assert limits[other] == windows.limit(other), "every grant is made known"
            assert limits[other] > loaded[other], "the chunk that is needed next has its room"


@given(st.data())
def test_devices_without_chunks_of_state_have_a_room_in_their_turn_and_never_more(data: st.DataObject) -> None:
    iterable, described = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 7))
    rooms = iterable + data.draw(st.integers(1, 9))
    windows = Windows(iterable, rooms, described=described)
    left = {place: data.draw(st.integers(1, 3)) for place in range(iterable + described)}
    limits = dict.fromkeys(left, 0) | {grant.device: grant.limit for grant in windows.opening()}
    sent, loaded = dict.fromkeys(left, 0), dict.fromkeys(left, 0)
    while left:
        able = [
            (place, sending)
            for place in left
            for sending in (True, False)
            if (sent[place] < min(limits[place], left[place]) if sending else loaded[place] < sent[place])
        ]
        assert able, "somebody can always go on"
        place, sending = data.draw(st.sampled_from(able))
        if sending:
            sent[place] += 1
            grants = windows.received(place)
        else:
            loaded[place] += 1
            grants = windows.finished(place) if loaded[place] == left[place] else windows.loaded(place)
            if loaded[place] == left[place]:
                del left[place]
        for grant in grants:
            assert grant.limit > limits[grant.device], "a grant never lowers, and is never said twice"
            limits[grant.device] = grant.limit
        assert windows.granted <= rooms
        assert all(limits[other] == windows.limit(other) for other in left), "every grant is made known"
        waiting = [other for other in sorted(left) if other >= iterable]
        assert not waiting or limits[waiting[0]] > loaded[waiting[0]], "the lowest has a room"


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 20))
def test_a_device_never_holds_more_than_its_own_limit(devices: int, each: int, more: int) -> None:
    windows = Windows(devices, devices + more, each=each)
    for place in range(devices):
        windows.received(place)
        windows.loaded(place)
    for _ in range(30):
        for place in range(devices):
            while windows.of(place).ahead:
                windows.received(place)
            assert windows.of(place).held <= max(1, each)
            windows.loaded(place)
    assert max(windows.of(place).most for place in range(devices)) <= max(1, each)


# ---------------------------------------------------------------------- no deadlock, whatever the order


@pytest.mark.parametrize(
    "world",
    [
        pytest.param({"chunks": [2], "rooms": 1, "channels": 1, "savers": 1, "loaders": 1}, id="one device, one room"),
        pytest.param({"chunks": [1, 1], "rooms": 2, "channels": 1, "savers": 2, "loaders": 1}, id="one loader for two"),
        pytest.param({"chunks": [1, 0], "rooms": 2, "channels": 2, "savers": 1, "loaders": 2}, id="one saver for two"),
    ],
)
@pytest.mark.parametrize("hold", [False, True], ids=["configs as loaded", "configs after all states"])
def test_every_order_of_a_small_migration_ends_with_all_chunks_in_order(world: dict[str, Any], hold: bool) -> None:
    order = EveryOrder()
    runs = 0
    while True:
        small = World(**world, hold=hold)
        small.run(order)
        assert small.loaded == [list(range(count)) for count in world["chunks"]]
        assert sorted(small.configured) == list(range(len(world["chunks"])))
        runs += 1
        if not order.another() or runs == ORDERS:
            break
    assert runs > 10


@pytest.mark.parametrize("seed", range(40))
def test_random_orders_of_larger_migrations_end_with_all_chunks_in_order(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(5):
        devices = dice.randint(1, 6)
        world = World(
            chunks=[dice.randint(0, 9) for _ in range(devices)],
            rooms=dice.randint(devices, devices * 3),
            channels=dice.randint(1, 4),
            savers=dice.randint(1, devices),
            loaders=dice.randint(1, devices),
            hold=dice.random() < 0.5,
        )
        world.run(dice.randrange)
        assert world.loaded == [list(range(count)) for count in world.chunks]
        assert 0 < world.most_held <= world.rooms


def test_the_explorer_sees_a_deadlock_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(chunks=[3], rooms=1, channels=1, savers=1, loaders=1)
    # a destination that returns no credit
    monkeypatch.setattr(world.windows, "loaded", lambda _: [])
    with pytest.raises(DeadlockError, match="Credit"):
        world.run(lambda _: 0)


@pytest.mark.parametrize(
    ("budget", "chunk", "devices", "words"),
    [
        (64 * 4096, 2048, 64, "a chunk of 2048 bytes is shorter than a page: make it 4096 bytes or more"),
        (63 * 4096, 4096, 64, "raise it to 262144 at least"),
    ],
)
def test_a_budget_that_cannot_be_cut_says_what_would_do(budget: int, chunk: int, devices: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        rooms_for(budget, chunk, devices)
    assert rooms_for(64 * 4096, 4096, 64) == (4096, 64)
