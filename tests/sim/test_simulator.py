"""The jobs in virtual time: downtimes that can be worked out by hand, and the published ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.errors import MigpoolError
from migpool.sim import published
from migpool.sim.fit import fit
from migpool.sim.published import EARLIER, PUBLISHED, Hypothesis, conclusion, explain
from migpool.sim.simulate import Profile, World, downtime
from tests.support import LONG
from tests.support.commandline import here

CONFIG = 0.5
PROFILE = Profile(size=4, read=4.0, write=0.0, stop=0.0, load_config=CONFIG)
WORLD = World(devices=(PROFILE,), savers=1, loaders=1, channels=8, channel_rate=1e18, link_rate=1e18, chunk=1, rooms=99)


def many(devices: int, profile: Profile = PROFILE, **more: object) -> World:
    more = {"savers": devices, "loaders": devices, **more}
    return replace(WORLD, devices=(profile,) * devices, **more)  # type: ignore[arg-type]


def test_one_device_takes_its_reads_and_its_config() -> None:
    assert downtime(WORLD) == pytest.approx(4.0 + CONFIG)


def test_writes_overlap_with_reads_but_for_the_last() -> None:
    assert downtime(many(1, replace(PROFILE, write=4.0))) == pytest.approx(5.0 + CONFIG)
    assert downtime(many(1, replace(PROFILE, write=8.0))) == pytest.approx(1.0 + 8.0 + CONFIG)


def test_devices_with_a_thread_each_queue_for_the_big_lock_alone() -> None:
    assert downtime(many(3)) == pytest.approx(4.0 + 3 * CONFIG)


def test_a_worker_takes_up_one_job_after_the_other() -> None:
    # The configs are loaded while the next device is read, but for the last.
    assert downtime(many(3, savers=1)) == pytest.approx(3 * 4.0 + CONFIG)
    assert downtime(many(4, savers=2)) == pytest.approx(2 * 4.0 + 2 * CONFIG)


def test_threads_that_work_take_turns_where_processors_are_few() -> None:
    free = downtime(many(4))
    assert downtime(many(4, processors=4)) == free
    assert downtime(many(4, processors=1)) == pytest.approx(4 * 4.0 + 4 * CONFIG)  # all end their reads together
    assert free < downtime(many(4, processors=2)) < downtime(many(4, processors=1))


def test_configs_that_grow_take_longer_for_each_that_was_loaded_before() -> None:
    growing = replace(PROFILE, load_growth=0.1)
    assert downtime(many(4, profile=growing)) == pytest.approx(4.0 + 4 * CONFIG + 0.1 * (1 + 2 + 3))
    sections = Profile(way="section", load_config=CONFIG, load_growth=0.1)
    assert downtime(many(3, profile=sections)) == pytest.approx(3 * CONFIG + 0.1 * (1 + 2))


def test_a_lock_for_reads_makes_threads_useless() -> None:
    locked = replace(PROFILE, shared="reads", load_config=0.0)
    assert downtime(many(3, profile=locked)) == pytest.approx(12.0)
    assert downtime(many(3, profile=locked)) == pytest.approx(downtime(many(3, savers=1, profile=locked)))
    written = replace(PROFILE, read=0.0, write=4.0, shared="writes", load_config=0.0)
    assert downtime(many(3, profile=written)) == pytest.approx(12.0)


def test_stops_and_the_rest_are_added() -> None:
    assert downtime(many(3, profile=replace(PROFILE, stop=0.1), base=2.0)) == pytest.approx(2.3 + 4.0 + 3 * CONFIG)


def test_channels_and_the_link_are_shared() -> None:
    fast = replace(PROFILE, read=0.0, load_config=0.0)
    assert downtime(many(2, profile=fast, channels=1, channel_rate=1.0)) == pytest.approx(8.0)
    assert downtime(many(2, profile=fast, channels=2, channel_rate=1.0)) == pytest.approx(4.0)
    assert downtime(many(2, profile=fast, channels=2, link_rate=1.0)) == pytest.approx(8.0)


def test_tight_memory_slows_down_and_never_stops() -> None:
    both = replace(PROFILE, write=4.0)
    times = [downtime(many(3, profile=both, rooms=rooms)) for rooms in (3, 6, 99)]
    assert times[0] >= times[1] >= times[2]
    assert times[2] == pytest.approx(5.0 + 3 * CONFIG)


def test_the_same_world_has_the_same_downtime() -> None:
    world = many(4, savers=3, profile=replace(PROFILE, write=3.0, shared="reads and writes"), rooms=5)
    assert len({downtime(world) for _ in range(3)}) == 1


def test_jobs_that_wait_for_each_other_are_named() -> None:
    with pytest.raises(MigpoolError, match="the simulated jobs wait for each other: load device-0, save device-0"):
        downtime(replace(WORLD, loaders=0, rooms=2))


def test_a_fit_finds_the_values_that_made_the_times() -> None:
    def times(values: Mapping[str, float]) -> list[float]:
        return [values["a"] + values["b"] * count for count in (1, 2, 4, 8)]

    found = fit({"a": 1.0, "b": 1.0}, times, times({"a": 0.05, "b": 0.3}))
    assert found["a"] == pytest.approx(0.05, rel=0.05)
    assert found["b"] == pytest.approx(0.3, rel=0.02)


def fit_roughly(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Fit to a quarter of the chunks; in the short profile to those of so many MiB, until the steps are of 4 %."""
    monkeypatch.setattr(published, "CHUNK", (20 if LONG else chunk) << 20)
    if not LONG:
        monkeypatch.setattr("migpool.sim.fit.LAST_STEP", 1.04)


def test_the_published_downtimes_need_something_that_devices_do_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fit_roughly(monkeypatch, 100)
    alone = explain(Hypothesis("nothing"), held_back=())
    locked = explain(Hypothesis("a lock", "reads"), held_back=())
    assert alone.worst > 0.25
    assert locked.worst < 0.10
    assert all(time == pytest.approx(PUBLISHED[key], rel=0.10) for key, time in locked.downtimes.items())
    # What was not fitted: more channels change nothing, as published.
    assert max(locked.channels.values()) / min(locked.channels.values()) < 1.05
    said = conclusion([alone, locked], [])
    assert said.startswith("Within 10% of every published downtime: a lock (at most ")
    assert "Not so: nothing (at most " in said


def test_configs_that_grow_explain_the_earlier_table_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fit_roughly(monkeypatch, 50)
    found = explain(Hypothesis("growing", also={"growth": 0.1}), EARLIER, held_back=())
    assert found.worst < 0.10
    assert 0.03 < found.values["growth"] < 0.2
    assert "So the earlier table: growing (at most" in conclusion([replace(found, published=found.downtimes)], [found])


def test_a_number_is_predicted_by_a_fit_that_has_not_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def fitted(start: Mapping[str, float], _simulate: object, measured: list[float]) -> dict[str, float]:
        seen.append(len(measured))
        return {name: value * len(measured) for name, value in start.items()}

    monkeypatch.setattr(published, "CHUNK", 50 << 20)
    monkeypatch.setattr(published, "fit", fitted)
    found = explain(Hypothesis("any"))
    assert seen == [6] + [5] * 6
    assert found.held.keys() == PUBLISHED.keys()
    assert all(found.held[key] > time for key, time in found.downtimes.items())


def test_the_command_shows_and_writes_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "hypotheses", lambda: [Hypothesis("[some] lock", "reads")])
    monkeypatch.setattr(published, "fit", lambda start, *_: dict(start))
    ended = here("lab", "run", "published", "--results", str(tmp_path))
    assert ended.code == 0, ended.err
    assert "(published)" in ended.out
    assert "[some] lock" in ended.out
    assert "None explains the published downtimes; the nearest is [some] lock" in " ".join(ended.out.split())
    form = json.loads((tmp_path / "published.json").read_text())
    assert [one["name"] for one in form["hypotheses"]] == ["[some] lock"]
    assert [len(one["downtimes"]) for one in (*form["hypotheses"], *form["earlier"])] == [6, 6]
    assert form["hypotheses"][0]["values"]["read"] == 0.2
    assert "| (published) | 487 | 859 | 1900 | 366 | 556 | 1095 |  |  |" in (tmp_path / "published.md").read_text()


def test_without_simpy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("migpool.sim")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "simpy", None)
    ended = here("lab", "run", "published")
    assert (ended.code, ended.err) == (2, "migpool: the simulator needs SimPy: pip install 'migpool[sim]'\n")
