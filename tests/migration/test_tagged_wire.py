"""Parts with tags that are wrong on the wire: one error that names device and tag, and everything else is undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.blocking_aware import BlockingAwareScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents
from tests.support.tagging import PIECE, Tagged
from tests.support.tampering import Line

# One channel: over two a config that says too few may come, and all end, before the part that it does not count.
SETTINGS = Settings(channels=1, chunk=4 * KIB, budget=64 * KIB, peer_limit=3)
PATIENT = replace(SETTINGS, peer_limit=LIMIT)  # the source's, so that it is the destination that finds what is missing
PARTS = 20
MODELS = [
    pytest.param((PerDeviceScheduler, PerDeviceScheduler), id="per-device"),
    pytest.param((PoolScheduler, ReceiverScheduler), id="pool+receiver"),
    pytest.param((BlockingAwareScheduler, BlockingAwareScheduler), id="blocking-aware"),
]


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({5: 4}, "tagged-1, chunk 4: the part with the tag 4 has come twice"),
        ({PARTS: PARTS - 1}, f"{PARTS} parts came, of {PARTS - 1}"),
        ({PARTS: PARTS + 1}, f"tagged-1: 1 of {PARTS + 1} parts did not come"),
        ({PARTS: 0}, "parts came, of 0"),
    ],
    ids=["a tag twice", "the config says fewer", "the config says more", "the config says none"],
)
def test_it_is_named_and_the_rest_is_undone(
    tmp_path: Path, models: tuple[type[Scheduler], type[Scheduler]], changed: dict[int, int], words: str
) -> None:
    source = [Tagged(number, contents(PARTS * PIECE, number)) for number in (1, 2)]
    destination = [Tagged(number) for number in (1, 2)]
    plain, there = Scripted(9, contents(40 * KIB, 9)), Scripted(9)

    def index_of(idstr: str, index: int) -> int:
        return changed.get(index, index) if idstr == "tagged-1" else index

    line = Line(tmp_path / "line", indices=index_of)
    try:
        pair = Pair([*source, plain], [*destination, there], PATIENT, SETTINGS, models=models, through=line)
        sent, got = pair.run(tmp_path)
    finally:
        line.close()
    assert got.outcome is sent.outcome is State.FAILED
    assert got.error.startswith("tagged-1")
    assert words in got.error
    assert sent.error == f"the destination failed: {got.error}"
    assert all(device.running for device in source)
    assert plain.running
    assert "start" not in there.calls
