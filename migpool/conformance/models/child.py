"""Checks in a process of their own, so that a model may hang, spin or exit as it likes: the kit always ends.

The kit sends the name of a check, the child runs it and sends what came of it. A process that has failed a check, or
does not answer, is killed, and the next check has a new one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Final

from migpool.conformance.check import AFTER_ABORT, Check, CheckResult, Outcome, run_check
from migpool.conformance.models import checks
from migpool.conformance.models.bench import Subject, subjects

GRACE: Final = 15.0
"""Seconds more than a check may take that the child has to answer; it has to be started in them."""


class ChildRunner:
    """Runs checks of one model in a child, which is started when it is needed. Close it.

    Arguments:
        limit: seconds that one check may take.
    """

    def __init__(self, subject: Subject, limit: float) -> None:
        self._subject = subject
        self._limit = limit
        self._child: tuple[subprocess.Popen[bytes], Connection] | None = None

    def run(self, check: Check[Subject]) -> CheckResult:
        began = time.monotonic()
        outcome, text = self._ask(check.name)
        if outcome is not Outcome.PASSED:
            self.close()
        return CheckResult(check.name, check.under, check.about, outcome, text, time.monotonic() - began)

    def close(self) -> None:
        if self._child is not None:
            process, connection = self._child
            self._child = None
            with connection, process:
                process.kill()

    def _ask(self, name: str) -> tuple[Outcome, str]:
        process, connection = self._child = self._child or self._start()
        patience = self._limit + AFTER_ABORT + GRACE
        with contextlib.suppress(OSError):
            connection.send(name)
        try:
            if not connection.poll(patience):
                return Outcome.FAILED, f"the process has not answered within {patience:g} s"
            answer: tuple[Outcome, str] = connection.recv()
        except (EOFError, OSError):
            return Outcome.FAILED, f"the model ended the process, with status {process.wait()}"
        return answer

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        subject = self._subject
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", __name__, subject.name, subject.side, str(self._limit)]
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return process, ours


def model_runs(
    name: str, limit: float, at_end: Callable[[Callable[[], None]], object]
) -> list[tuple[Check[Subject], Callable[[], CheckResult]]]:
    """Every check of the threading model of that name, and what runs it.

    Arguments:
        limit: seconds that one check may take.
        at_end: takes what must be called when the last check has run.

    Raises:
        UsageError, PluginError: as for :func:`~migpool.conformance.models.bench.subjects`.
    """
    found: list[tuple[Check[Subject], Callable[[], CheckResult]]] = []
    for subject in subjects(name, limit):
        runner = ChildRunner(subject, limit)
        at_end(runner.close)
        found += [(check, partial(runner.run, check)) for check in checks(subject)]
    return found


def _serve(name: str, side: str, limit: float, kit: Connection) -> None:
    subject = next(one for one in subjects(name, limit) if (one.name, one.side) == (name, side))
    by_name = {check.name: check for check in checks(subject)}
    died: list[str] = []

    def note(hook: threading.ExceptHookArgs) -> None:
        thread = hook.thread.name if hook.thread else "a thread"
        died.append(f"; the thread {thread} died of {hook.exc_type.__name__}: {hook.exc_value}")

    threading.excepthook = note
    with contextlib.suppress(EOFError):
        while True:
            check = by_name[kit.recv()]
            died.clear()
            finding = run_check(subject, check, limit)
            text = finding.text + "".join(died[:1] if finding.outcome is Outcome.FAILED else ())
            kit.send((finding.outcome, " ".join(text.split())))


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), Connection(int(sys.argv[4])))
    os._exit(0)  # what the model leaves running does not keep the process
