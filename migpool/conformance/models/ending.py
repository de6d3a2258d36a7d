"""Checks of how a model ends: by an error, by a cancel, by a close; and what is left of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from migpool.conformance.check import Failure
from migpool.conformance.models.bench import Bench, Subject, benched, eventually
from migpool.core.machine import Slot
from migpool.errors import Cancelled, DeviceError, TimeLimitExceeded, UsageError

CHUNKS = 4
HELD_LIMIT = 0.3
"""Seconds that a model has to end while a device holds a thread."""


def first_error(subject: Subject) -> str:
    """A device's error comes out of drain, and ends the other jobs at their next wait."""
    with benched(subject) as bench:
        _failing(bench, DeviceError("it is broken"))
        _must_raise(bench, DeviceError, "device-0, chunk 0: it is broken")
        if not bench.switch.thrown:
            raise Failure("the error has not thrown the switch")
    return "drain raised it"


def unexpected_error(subject: Subject) -> str:
    """Whatever else a device raises comes out of drain as one error that names the device and the chunk."""
    with benched(subject) as bench:
        _failing(bench, ZeroDivisionError("by zero"))
        _must_raise(bench, DeviceError, "device-0, chunk 0: ZeroDivisionError in its load_state: by zero")
    return "drain raised it"


def cancels(subject: Subject) -> str:
    """Cancel while a job waits for each of its chunks, and in each of its writes: drain says so, nothing more runs."""
    for position in range(2 * CHUNKS):
        chunk, in_device = divmod(position, 2)
        with benched(subject) as bench:
            slot, reached = bench.slots[0], threading.Event()
            if in_device:
                bench.holds = _until_abort(bench, chunk, reached)
            submitting = bench.submitting(bench.load(slot, CHUNKS))
            feeding = bench.calling("a chunk's arrival", partial(bench.put, slot, chunk + in_device))
            bench.until_asked(chunk + 1)
            if in_device and not reached.wait(bench.patience):
                raise Failure(f"chunk {chunk} came, and is not written: {bench.scheduler.standing()}")
            bench.call("cancel", bench.scheduler.cancel)
            submitting.end()
            feeding.end()
            _must_raise(bench, Cancelled, "cancelled")
            if bench.written[0] != list(range(chunk)):
                raise Failure(f"cancelled at chunk {chunk}, and chunks {bench.written[0]} were written")
    return f"{2 * CHUNKS} waits"


def after_cancel(subject: Subject) -> str:
    """A job that is submitted after a cancel does not run, and drain raises the reason."""
    with benched(subject) as bench:
        slot = bench.slots[0]
        bench.put(slot)
        bench.call("cancel", bench.scheduler.cancel)
        bench.submitting(bench.load(slot, 1)).end()
        _must_raise(bench, Cancelled, "cancelled")
        if bench.written[0]:
            raise Failure(
                "a job that was submitted after the cancel ran: call accept, and run what it returns True for"
            )
    return "not run"


def after_close(subject: Subject) -> str:
    """A job that is submitted after close is refused with UsageError, and does not run."""
    with benched(subject) as bench:
        slot = bench.slots[0]
        bench.put(slot)
        bench.call("close", bench.scheduler.close)
        try:
            bench.submitting(bench.load(slot, 1)).end()
        except UsageError:
            pass
        else:
            raise Failure("submit after close was not refused: call accept, which raises UsageError")
        if bench.written[0]:
            raise Failure("a job that was submitted after close ran")
    return "refused"


def leaves_no_thread(subject: Subject) -> str:
    """Every thread of the model is the migration's, counted while it runs and joined by close."""
    with benched(subject, devices=8) as bench:
        feeding = bench.feeding(1)
        submitting = bench.submitting(*(bench.load(slot, 2) for slot in bench.slots))
        feeding.end()
        bench.until_asked(2)
        # The model's own are read first: one that is made meanwhile is only counted.
        if not eventually(lambda: len(bench.model_threads()) <= bench.threads.alive, bench.patience):
            raise Failure(
                f"the model has {len(bench.model_threads())} threads, and the migration counts {bench.threads.alive}: "
                "start threads by self.spawn and self.pool"
            )
        most = bench.threads.peak
        bench.feeding(1).end()
        submitting.end()
        bench.drain()
        bench.call("close", bench.scheduler.close)
        # Python strikes a thread that was joined off its own list a moment later.
        if not eventually(lambda: not bench.model_threads(), bench.patience):
            names = ", ".join(sorted(thread.name for thread in bench.model_threads()))
            raise Failure(f"after close these threads are left: {names}")
    return f"{most} threads at most" if most else "no threads"


def ignored_abort(subject: Subject) -> str:
    """A device that ignores abort holds one thread: drain and close end all the same, and say what is held."""
    said = "nothing was held on a thread of the model"
    leave, reached = threading.Event(), threading.Event()

    def hold(slot: Slot) -> None:
        del slot
        reached.set()
        leave.wait()

    try:
        with benched(subject, workers=1, limit=HELD_LIMIT) as bench:
            bench.holds = hold
            slot = bench.slots[0]
            submitting = bench.submitting(bench.load(slot, 1))
            feeding = bench.calling("a chunk's arrival", lambda: bench.put(slot))
            if not reached.wait(bench.patience):
                raise Failure(f"the chunk came, and is not written: {bench.scheduler.standing()}")
            bench.call("cancel", bench.scheduler.cancel)
            _must_raise(bench, Cancelled, "cancelled")
            try:
                bench.call("close", bench.scheduler.close)
            except TimeLimitExceeded as error:
                said = str(error)
                if slot.name not in said:
                    raise Failure(f"close says {said!r}, which does not name {slot.name}") from None
            leave.set()
            submitting.end()
            feeding.end()
            if not eventually(lambda: not bench.model_threads(), bench.patience):
                raise Failure("threads are left although the device has let go")
    finally:
        leave.set()
    return said


def _failing(bench: Bench, error: Exception) -> None:
    """Submit jobs, the first of which fails at its first chunk while the others wait."""

    def hold(slot: Slot) -> None:
        if slot is bench.slots[0]:
            raise error

    bench.holds = hold
    submitting = bench.submitting(*(bench.load(slot, CHUNKS) for slot in bench.slots))
    bench.calling("a chunk's arrival", lambda: bench.put(bench.slots[0])).end()
    submitting.end()


def _until_abort(bench: Bench, chunk: int, reached: threading.Event) -> Callable[[Slot], None]:
    aborted = threading.Event()
    bench.switch.on_cancel(aborted.set)

    def hold(slot: Slot) -> None:
        if len(bench.written[slot.number]) == chunk:
            reached.set()
            aborted.wait()
            raise DeviceError("aborted")

    return hold


def _must_raise(bench: Bench, kind: type[Exception], words: str) -> None:
    try:
        bench.drain()
    except Failure:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is no good or the right one
        if not isinstance(error, kind) or words not in str(error):
            raise Failure(
                f"drain did not raise {kind.__name__}: {words}; but {type(error).__name__}: {error}"
            ) from None
    else:
        raise Failure(f"drain returned, and did not raise {kind.__name__}: {words}")
