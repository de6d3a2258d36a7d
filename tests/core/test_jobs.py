"""What each job yields, effect by effect: the whole of it, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migpool.core.effects import Effect, Steps, TakeConfig
from migpool.core.jobs import keep_config, load_config, load_section, load_state, save_pages, save_sections, save_state
from migpool.core.machine import Machine
from tests.support.rig import Scripted


class Piece:
    """A chunk as far as a job looks at it."""

    def __init__(self, last: bool = False, payload: bytes = b"") -> None:
        self.last = last
        self.payload = memoryview(payload)


def yielded(steps: Steps, answer: Callable[[Effect[object]], object]) -> list[str]:
    """Each effect's name, index, and what else it says, at the moment it is yielded."""
    found = []
    try:
        effect = next(steps)
        while True:
            words = [type(effect).__name__, str(effect.index)]
            words += ["last"] if getattr(effect, "last", False) else []
            config = getattr(effect, "config", None)
            words += [repr(config)] if config is not None else []
            found.append(" ".join(words))
            effect = steps.send(answer(effect))
    except StopIteration:
        return found


MACHINE = Machine("m", [Scripted(0, b"state"), Scripted(1, None, name="plain")])
SLOT, PLAIN = MACHINE.slots


@pytest.mark.parametrize("grant", [1, 2, 4])
@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_buffer_is_given_back_before_the_config_is_saved_and_each_chunk_has_credit_before_it_is_sent(
    chunks: int, grant: int
) -> None:
    def answer(effect: Effect[object]) -> object:
        return {
            "ReadState": effect.index < chunks,
            "Acquire": Piece(),
            "Credit": effect.index + grant,  # the first index that there is no room for
            "SaveConfig": b"config",
        }.get(type(effect).__name__)

    expected = ["Acquire -1"]
    for index in range(chunks + 1):
        expected += [f"ReadState {index}"]
        expected += ["Release -1", f"SaveConfig {index}"] if index == chunks else []
        expected += [f"Credit {index}"] if index % grant == 0 else []
        expected += [f"SendConfig {index} b'config'" if index == chunks else f"Send {index}"]
    assert yielded(save_state(SLOT), answer) == expected


@pytest.mark.parametrize(("keep", "then"), [(False, "LoadConfig"), (True, "KeepConfig")])
@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_the_room_of_the_last_chunk_is_free_before_its_config_is_loaded(chunks: int, keep: bool, then: str) -> None:
    pieces = iter([*(Piece() for _ in range(chunks)), Piece(last=True, payload=b"config")])

    def answer(effect: Effect[object]) -> object:
        return next(pieces) if type(effect).__name__ == "NextChunk" else None

    expected = []
    for index in range(chunks):
        expected += [f"NextChunk {index}", f"WriteState {index}", f"Loaded {index}"]
    expected += [f"NextChunk {chunks}", f"Loaded {chunks} last", f"{then} {chunks} b'config'"]
    assert yielded(load_state(SLOT, keep=keep), answer) == expected


def test_sections_are_saved_and_sent_one_after_the_other() -> None:
    steps = save_sections([PLAIN, PLAIN])
    assert yielded(steps, lambda _: b"c") == ["SaveConfig -1", "SendSection -1 b'c'"] * 2


def test_a_device_with_a_job_of_its_own_is_waited_for() -> None:
    class Apart(Scripted):
        config_job = True

    (slot,) = Machine("m", [Apart(0, None)]).slots
    assert yielded(save_sections([slot]), lambda _: b"c") == ["TakeConfig -1", "SendSection -1 b'c'"]
    assert yielded(keep_config(slot), lambda _: b"c") == ["SaveConfig -1", "KeepConfig -1 b'c'"]


def test_pages_are_taken_and_sent_until_there_are_none() -> None:
    taken = iter([["pages"], ["more"], None])

    def answer(effect: Effect[object]) -> object:
        return next(taken) if type(effect).__name__ == "TakePages" else None

    expected = ["TakePages 0", "SendPages 0", "TakePages 1", "SendPages 1", "TakePages 2"]
    assert yielded(save_pages(SLOT), answer) == expected


def test_a_config_alone_is_loaded_and_its_index_is_that_of_the_chunk_it_came_in() -> None:
    def answer(effect: Effect[object]) -> object:
        if isinstance(effect, TakeConfig):
            effect.index = 7  # as who kept it says
            return b"c"
        return None

    assert yielded(load_config(SLOT), answer) == ["TakeConfig -1", "LoadConfig 7 b'c'"]
    assert yielded(load_section(PLAIN, b"c"), lambda _: None) == ["LoadConfig -1 b'c'"]
