"""A running guest moves, with its memory, and proves that nothing was lost; a proof that can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import MemoryDevice, OptionValue, VerificationError
from migpool.migration.states import State
from migpool.schedulers.base import Scheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.guests import group_of, guest, steps
from tests.support.rig import Pair

BACKENDS = ("kvm", "unicorn")
MODELS: list[tuple[type[Scheduler], type[Scheduler]]] = [
    (InlineScheduler, InlineScheduler),
    (PerDeviceScheduler, PerDeviceScheduler),
    (PoolScheduler, ReceiverScheduler),
    (ElasticScheduler, PoolScheduler),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pattern", ["sequential", "random", "hot"])
def test_a_guest_that_runs_proves_itself(backend: str, pattern: str) -> None:
    with guest("source", backend, pattern=pattern, hot="64KiB") as made:
        for device in made:
            device.verify()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("models", MODELS, ids=lambda models: "+".join(model.__name__[:-9] for model in models))
def test_a_guest_moves(backend: str, models: tuple[type[Scheduler], type[Scheduler]], tmp_path: Path) -> None:
    with guest("source", backend) as here, guest("destination", backend) as there:
        sent, received = Pair(here, there, models=models).run(tmp_path)
        assert (sent.error, received.error) == ("", "")
        assert received.outcome is State.COMPLETED
        assert ["stood still for" in device.remark for device in received.devices] == [False, True, True, False]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "options", [{"pattern": "hot", "hot": "32KiB"}, {"pattern": "sequential", "rate": 0}], ids=["hot", "full speed"]
)
def test_a_guest_moves_with_any_pattern(backend: str, options: dict[str, OptionValue], tmp_path: Path) -> None:
    with guest("source", backend, **options) as here, guest("destination", backend, **options) as there:
        pair = Pair(here, there)
        pair.settings = replace(pair.settings, downtime_limit=10.0)
        sent, received = pair.run(tmp_path)
        assert (sent.error, received.error) == ("", "")


def test_a_guest_moves_there_and_back(tmp_path: Path) -> None:
    with guest("source", "kvm") as first:
        begun = steps(first)
        made, places = first, []
        for number in range(3):
            place = guest("destination", "kvm")
            there = place.__enter__()
            places.append(place)
            folder = tmp_path / str(number)
            folder.mkdir()
            sent, received = Pair(made, there).run(folder)
            assert (sent.error, received.error) == ("", "")
            made = there
        assert all(after > before for before, after in zip(begun, steps(made), strict=True))
        for place in places:
            place.__exit__(None, None, None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_log_that_loses_pages_is_proven_wrong(backend: str, tmp_path: Path) -> None:
    # Slow enough that what was lost is not written again before the guest is looked at.
    with guest("source", backend, 1, rate=200) as here, guest("destination", backend, 1, rate=200) as there:
        thread = group_of(here).threads[0]
        memory = here[0]
        assert isinstance(memory, MemoryDevice)
        whole = memory.take_dirty

        def lossy(block: int) -> bytes:
            if not thread.standing:
                thread.wait_batches(2, 10)
            answer = bytearray(whole(block))
            # Not the first MiB, where the control page is. All others: some were written only after they were sent.
            answer[32:] = bytes(len(answer) - 32)
            return bytes(answer)

        memory.take_dirty = lossy  # type: ignore[method-assign]
        sent, received = Pair(here, there).run(tmp_path)
        assert received.outcome is State.UNCONFIRMED
        assert "was written last by step" in received.error or "checksum" in received.error
        assert "it runs" in sent.error or "runs at the destination" in sent.error


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_page_that_goes_wrong_is_found(backend: str) -> None:
    with guest("source", backend, 1, rate=1) as made:
        group = group_of(made)
        with group.paused():
            group.memory.view[group.layout.region(0).start + 7 * 4096 + 4095] ^= 1
        with pytest.raises(VerificationError, match="page 7 of its region was written last by step"):
            made[1].verify()
        group.memory.view[group.layout.untouched[0].start] ^= 1
        with pytest.raises(VerificationError, match="which nobody writes, is not as it was"):
            made[0].verify()
