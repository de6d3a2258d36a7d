"""The source once all is sent: since when the machine runs there, and what a cancel at that time comes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from migpool.core.machine import Machine
from migpool.errors import Cancelled, PeerError, PeerGone, TimeLimitExceeded, Untrusted
from migpool.migration.completion import Completion
from migpool.migration.report import boot_id
from migpool.migration.return_path import ReturnPath
from migpool.migration.states import Event, State, StateMachine
from migpool.wire.returnpath import Running

SENT = 1_000
"""When everything had been sent, in nanoseconds."""


class Said:
    """A return path on which all has been said that will be, and a main channel.

    Arguments:
        running: the destination's word, which came at ``running_at``.
        cancelled: whether a wait ends by a cancel.
        verdict: what the destination answers when it is asked to give up.
    """

    cut = False

    def __init__(self, running: Running | None, *, cancelled: bool = False, verdict: bool | None = None) -> None:
        self.running = running
        self.running_at = 5_000
        self.shut = object()
        self.ended = 0
        self._cancelled = cancelled
        self._verdict = verdict

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        if self._cancelled:
            raise Cancelled(f"cancelled while it waits for {what}")
        assert ready()

    def verdict(self, limit: float) -> bool | None:
        assert limit == 7.0
        assert self.ended, "it must be asked first"
        return self._verdict

    def end(self) -> None:
        self.ended += 1


def handover(said: Said) -> Completion:
    return Completion(
        Machine("m", []), cast("ReturnPath", said), said.end, credited=True, limit=7.0, sent=SENT, round_trip=600
    )


def never() -> None:
    raise AssertionError("the destination has not refused")


def sent() -> None:
    """The end of the stream has been sent."""


def test_the_clock_of_the_same_boot_says_since_when() -> None:
    assert handover(Said(Running(boot_id(), 1_234))).running(sent, never) == (1_234, "monotonic")


def test_the_clock_of_another_boot_says_nothing_here_and_the_answer_was_half_a_round_trip_under_way() -> None:
    assert handover(Said(Running(bytes(16), 1_234))).running(sent, never) == (4_700, "return-path")


@pytest.mark.parametrize("claimed", [0, SENT - 1, 5_001, 1 << 63])
def test_a_clock_that_says_what_cannot_be_is_not_believed(claimed: int) -> None:
    assert handover(Said(Running(boot_id(), claimed))).running(sent, never) == (4_700, "return-path")


def test_a_round_trip_that_was_longer_at_first_does_not_put_the_start_before_the_end_of_the_sending() -> None:
    said = Said(Running(bytes(16), 1_234))
    said.running_at = SENT + 10
    assert handover(said).running(sent, never) == (SENT, "return-path")


@pytest.mark.parametrize(("verdict", "ends"), [(True, "runs"), (False, "cancelled"), (None, "in doubt")])
def test_a_cancel_asks_the_destination_to_give_up_and_takes_its_word(verdict: bool | None, ends: str) -> None:
    said = Said(Running(boot_id(), SENT + 9) if verdict else None, cancelled=True, verdict=verdict)
    refused: list[str] = []
    source = handover(said)
    if ends == "runs":
        assert source.running(sent, never) == (SENT + 9, "monotonic")
    elif ends == "cancelled":
        with pytest.raises(Cancelled):
            source.running(sent, lambda: refused.append("refused"))
    else:
        with pytest.raises(PeerError, match="has not said within 7 s whether the machine runs there"):
            source.running(sent, never)
    assert said.ended == 1
    assert refused == (["refused"] if ends == "cancelled" else [])


@pytest.mark.parametrize("error", [TimeLimitExceeded, PeerGone, Untrusted, ZeroDivisionError])
@pytest.mark.parametrize("verdict", [True, False, None])
def test_whatever_goes_wrong_with_the_end_of_the_stream_it_may_have_arrived(
    error: type[Exception], verdict: bool | None
) -> None:
    said = Said(Running(boot_id(), SENT + 9) if verdict else None, verdict=verdict)
    refused: list[str] = []

    def send_half() -> None:
        raise error("half of it is sent")

    source = handover(said)
    if verdict:
        assert source.running(send_half, never) == (SENT + 9, "monotonic")
    else:
        with pytest.raises(PeerError if verdict is None else error, match="half of it is sent"):
            source.running(send_half, lambda: refused.append("refused"))
    assert said.ended == 1
    assert refused == (["refused"] if verdict is False else [])


@pytest.mark.parametrize("event", [Event.FAIL, Event.CANCEL])
def test_once_the_machine_runs_there_it_is_not_taken_back(event: Event) -> None:
    states = StateMachine()
    for before in (Event.BEGIN, Event.CONNECTED, Event.SWITCH_OVER, Event.SENT, Event.RUNNING):
        states.happen(before)
    assert states.happen(event) is State.UNCONFIRMED
