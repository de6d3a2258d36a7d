"""Made-up migrations of which one thing alone limits the downtime: the first sentence names it, and never another."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from migpool.lab.analysis.why import analyse
from migpool.lab.run.result import AnalysisResult
from tests.support import LONG
from tests.support.attribution.made_downtimes import Made, Rules, made

EACH = 24 if LONG else 2
RIGHT = 0.95

Case = tuple[Rules, str]


def few(chance: random.Random, **changes: float) -> tuple[Made, ...]:
    """A few devices that are not quite alike, quick at everything that is not said."""
    base = {"chunks": chance.randrange(8, 25), "read": 1.0, "send": 0.15, "write": 0.8, "config": 0.3, **changes}
    return tuple(
        Made(
            int(base["chunks"]),
            *(base[what] * chance.uniform(0.8, 1.2) for what in ("read", "send", "write", "config")),
        )
        for _ in range(chance.randrange(3, 8))
    )


def even(devices: tuple[Made, ...], **same: float) -> tuple[Made, ...]:
    """The same, alike in what is said: a lock's turns are of one length."""
    return tuple(replace(one, **same) for one in devices)  # type: ignore[arg-type]


def lock_at_the_source(chance: random.Random) -> Case:
    return Rules(even(few(chance), read=chance.uniform(1.5, 6), chunks=16), read_lock=True), "the reads of d0"


def lock_at_the_destination(chance: random.Random) -> Case:
    return Rules(even(few(chance), write=chance.uniform(1.5, 6), chunks=16), write_lock=True), "the writes of d0"


def slow_device(chance: random.Random) -> Case:
    first, *others = few(chance)
    slow = replace(first, read=first.read * chance.uniform(3, 8), write=first.write * chance.uniform(3, 8), chunks=24)
    return Rules((slow, *others)), "d0 is slow"


def channels(chance: random.Random) -> Case:
    return Rules(few(chance, send=chance.uniform(1.5, 4)), channels=1), "there are too few channels"


def channels_and_a_pool(chance: random.Random) -> Case:
    """As many threads as channels."""
    return Rules(few(chance, send=chance.uniform(1.5, 4)), channels=1, workers=1), "there are too few channels"


def workers_at_the_source(chance: random.Random) -> Case:
    return Rules(few(chance, read=3.0), workers=1, loaders=99), "there are too few threads at the source"


def workers_at_the_destination(chance: random.Random) -> Case:
    return Rules(few(chance, write=3.0), workers=99, loaders=1), "there are too few threads at the destination"


def link(chance: random.Random) -> Case:
    return Rules(few(chance, send=chance.uniform(3, 8))), "state takes its time on the way"


def memory_budget(chance: random.Random) -> Case:
    """What is read and written comes in bursts, one after the other: with room they would be at the same time."""
    devices = even(few(chance, read=1.0, write=1.0), burst=chance.uniform(6, 12), chunks=24)
    return Rules(devices, rooms=1), "the destination's memory budget is short"


def config_loads(chance: random.Random) -> Case:
    return Rules(few(chance, config=chance.uniform(8, 30))), "the devices' configs"


def cpu(chance: random.Random) -> Case:
    return Rules(few(chance), compute=chance.uniform(2, 6)), "threads compute"


def pre_copied(chance: random.Random) -> Case:
    return Rules(few(chance), behind=chance.uniform(80, 200)), "the destination is still loading"


def sections(chance: random.Random) -> Case:
    times = tuple(chance.uniform(3, 9) for _ in range(chance.randrange(8, 20)))
    return Rules(few(chance), sections=times), f"{len(times)} devices are saved and loaded one after the other"


def none(chance: random.Random) -> Case:
    """Every device for itself, all about alike: it takes as long as the state takes."""
    return Rules(even(few(chance, send=0.02, config=0.01), chunks=20)), "no one thing"


CULPRITS = (
    lock_at_the_source,
    lock_at_the_destination,
    slow_device,
    channels,
    channels_and_a_pool,
    workers_at_the_source,
    workers_at_the_destination,
    link,
    memory_budget,
    config_loads,
    cpu,
    pre_copied,
    sections,
    none,
)


def sentence(rules: Rules) -> AnalysisResult:
    source, destination = made(rules)
    found = analyse(source, destination, 1 << 20)
    assert found is not None
    assert found.replayed_ms is not None
    measured = (destination.running - source.stopped) / 1e6
    assert found.replayed_ms == pytest.approx(measured, rel=0.1)
    return found


def test_the_first_sentence_names_the_culprit_and_nothing_else() -> None:
    wrong: Counter[str] = Counter()
    unnamed: Counter[str] = Counter()
    for culprit in CULPRITS:
        for number in range(EACH):
            rules, said = culprit(random.Random(f"{culprit.__name__} {number}"))
            why = sentence(rules).why
            assert len(why) < 250
            if not why.startswith(said):
                (unnamed if why.startswith("no one thing") else wrong)[f"{culprit.__name__}: {why}"] += 1
    assert not wrong
    assert sum(unnamed.values()) <= (1 - RIGHT) * EACH * len(CULPRITS), unnamed
