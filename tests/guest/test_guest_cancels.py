"""A migration that is cancelled at any of the source's waits: the guest runs on in one place, whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from migpool.migration.states import State
from tests.support import LONG
from tests.support.guest_cancelling import Cancelling, migrate, runs
from tests.support.guests import ends_for, need, steps

TURNS = 12 if LONG else 5


@pytest.mark.parametrize("backend", ["kvm", "unicorn"])
def test_a_cancel_at_any_wait_leaves_one_guest(backend: str, tmp_path: Path) -> None:
    need(backend)
    numbers = random.Random(3)
    with ends_for("source", backend) as here, ends_for("destination", backend) as there:
        tracer = Cancelling(0)
        sent, _ = migrate(here, there, tmp_path / "whole", tracer)
        assert sent.outcome is State.COMPLETED, sent.error
        usual = tracer.count
    seen = set()
    for turn in range(TURNS):
        at = numbers.randint(1, usual)
        with ends_for("source", backend) as here, ends_for("destination", backend) as there:
            before = steps([slot.device for slot in here])
            sent, received = migrate(here, there, tmp_path / str(turn), Cancelling(at))
            where = f"turn {turn}, cancelled at wait {at} of {usual}: {sent.outcome.value}, {received.outcome.value}"
            assert (runs(here), runs(there)) in ((True, False), (False, True)), where
            assert runs(here) == (sent.outcome is State.CANCELLED), where
            left = here if runs(here) else there
            for slot in left:
                slot.device.verify()
            after = steps([slot.device for slot in left])
            assert all(now > then for now, then in zip(after, before, strict=True)), where
            seen.add(sent.outcome)
    assert State.CANCELLED in seen
