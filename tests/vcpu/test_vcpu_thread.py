"""A vCPU's thread stands between batches only, and no wait on it lasts longer than allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from migpool.device import DeviceError
from migpool_plugins.vcpu.thread import VcpuThread

LIMIT = 10.0


class Guest:
    """A guest whose batches end when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.expelled = threading.Event()
        self.failure: DeviceError | None = None
        self.thread = VcpuThread(3, self.run_batch, halt=0.0)

    def run_batch(self) -> None:
        self.begun.release()
        assert self.may_end.acquire(timeout=LIMIT)
        if self.failure is not None:
            raise self.failure

    def stands(self) -> bool:
        return self.thread.standing

    def expel(self) -> None:
        self.expelled.set()
        self.may_end.release()


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.may_end.release(100)
    made.thread.end(made.expel, LIMIT)


def in_background(work: Callable[[], object]) -> Callable[[], BaseException | None]:
    """Begin ``work`` on a thread; the result waits for its end and returns what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except DeviceError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> BaseException | None:
        thread.join(LIMIT)
        assert not thread.is_alive()
        return raised[0] if raised else None

    return join


def test_it_stands_until_it_is_told_to_go(guest: Guest) -> None:
    assert guest.stands()
    assert not guest.begun.acquire(blocking=False)
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    assert not guest.stands()


def test_it_stands_only_at_the_end_of_a_batch(guest: Guest) -> None:
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    guest.thread.ask_to_stand()
    assert not guest.stands()
    guest.may_end.release()
    guest.thread.wait_standing(LIMIT)
    assert guest.stands()
    assert not guest.begun.acquire(blocking=False)


def test_a_wish_to_go_on_overtakes_one_to_stand(guest: Guest) -> None:
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    guest.thread.ask_to_stand()
    guest.thread.go()
    guest.may_end.release()
    assert guest.begun.acquire(timeout=LIMIT)
    assert not guest.stands()


def test_it_counts_the_batches_that_have_ended_since_it_was_asked(guest: Guest) -> None:
    guest.thread.go()
    guest.may_end.release(2)
    assert guest.thread.wait_batches(2, LIMIT)
    assert not guest.thread.wait_batches(1, limit=0.0)


def test_it_runs_once_it_has_followed_the_wish(guest: Guest) -> None:
    with pytest.raises(DeviceError, match=r"^vCPU 3 does not run after 0.0 s"):
        guest.thread.wait_running(0.0)
    guest.thread.go()
    guest.thread.wait_running(LIMIT)
    assert not guest.stands()


def test_a_guest_that_does_not_end_its_batch_is_named_within_the_limit(guest: Guest) -> None:
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    guest.thread.ask_to_stand()
    with pytest.raises(DeviceError, match=r"^vCPU 3 has not stopped within 0.0 s"):
        guest.thread.wait_standing(0.0)


def test_a_guest_that_does_not_end_its_batch_is_expelled_at_the_end(guest: Guest) -> None:
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    guest.thread.end(guest.expel, LIMIT)
    assert guest.expelled.is_set()


def test_a_guest_that_cannot_be_expelled_is_named(guest: Guest) -> None:
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    with pytest.raises(DeviceError, match=r"^the thread of vCPU 3 has not ended within 0.0 s"):
        guest.thread.end(lambda: None, 0.0)


def test_a_failure_of_the_guest_reaches_who_waits_and_who_comes_later(guest: Guest) -> None:
    guest.failure = DeviceError("the guest left by a side door")
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    failed = in_background(lambda: guest.thread.wait_batches(1, LIMIT))
    guest.may_end.release()
    assert str(failed()) == "vCPU 3 has failed: the guest left by a side door"
    with pytest.raises(DeviceError, match="side door"):
        guest.thread.check()


def test_abort_ends_a_wait_at_once_and_refuses_others_until_recovery(guest: Guest) -> None:
    guest.thread.go()
    assert guest.begun.acquire(timeout=LIMIT)
    guest.thread.ask_to_stand()
    aborted = in_background(lambda: guest.thread.wait_standing(LIMIT))
    guest.thread.abort()
    guest.thread.abort()
    assert str(aborted()) == "vCPU 3: the migration was aborted"
    with pytest.raises(DeviceError, match="aborted"):
        guest.thread.check()
    guest.thread.recover()
    guest.may_end.release()
    guest.thread.wait_standing(LIMIT)


def test_a_resting_vcpu_stops_without_ending_its_rest() -> None:
    ended = threading.Event()
    thread = VcpuThread(0, ended.set, halt=3600.0)
    thread.go()
    assert ended.wait(LIMIT)
    thread.ask_to_stand()
    thread.wait_standing(LIMIT)
    thread.end(lambda: None, LIMIT)


def test_ending_twice_is_harmless_and_nothing_brings_it_back(guest: Guest) -> None:
    guest.thread.end(guest.expel, LIMIT)
    guest.thread.end(guest.expel, LIMIT)
    guest.thread.go()
    assert not guest.begun.acquire(blocking=False)
    assert not guest.expelled.is_set()
    assert "vcpu-3" not in {thread.name for thread in threading.enumerate()}
