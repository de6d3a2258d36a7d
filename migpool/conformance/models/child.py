"""Checks in a process of their own, so that a model may hang, spin or exit as it likes: the kit always ends.

::

    the kit                                   the child
    name of a check, a line        ------->   runs it
                                   <-------   what came of it, a line of JSON

A process that has failed a check, or does not answer, is killed, and the next check has a new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TextIO

from migpool.conformance.check import Check
from migpool.conformance.models.checks import FIRST, checks
from migpool.conformance.models.subject import Subject, subjects
from migpool.conformance.running import AFTER_ABORT, CheckResult, Outcome, run_check

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
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, check: Check[Subject]) -> CheckResult:
        began = time.monotonic()
        outcome, text = self._ask(check.name)
        if outcome is not Outcome.PASSED:
            self.close()
        return CheckResult(check.name, check.under, check.about, outcome, text, time.monotonic() - began)

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _ask(self, name: str) -> tuple[Outcome, str]:
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(f"{name}\n".encode())
            child.stdin.flush()
        line = _read_line(child, self._limit + AFTER_ABORT + GRACE)
        if line is None:
            return Outcome.FAILED, f"the process has not answered within {self._limit + AFTER_ABORT + GRACE:g} s"
        if not line:
            return Outcome.FAILED, f"the model ended the process, with status {child.wait()}"
        answer = json.loads(line)
        return Outcome(answer["outcome"]), answer["text"]

    def _start(self) -> subprocess.Popen[bytes]:
        subject = self._subject
        command = [sys.executable, "-m", __name__, subject.name, subject.side, str(self._limit)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )


def run_apart(
    found: Iterable[Subject], limit: float, watch: Callable[[Check[Subject]], None] | None = None
) -> Iterator[CheckResult]:
    """Run every check of each, one after the other; where a model runs no job, the first says it all.

    Arguments:
        limit: seconds that one check may take.
        watch: called before each.
    """
    for subject in found:
        with contextlib.closing(ChildRunner(subject, limit)) as runner:
            for check in checks(subject):
                if watch is not None:
                    watch(check)
                finding = runner.run(check)
                yield finding
                if check.name == FIRST and finding.outcome is Outcome.FAILED:
                    break


def _read_line(child: subprocess.Popen[bytes], limit: float) -> bytes | None:
    """The child's answer; ``None`` if it does not come in time, empty if it never will."""
    assert child.stdout is not None
    deadline = time.monotonic() + limit
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        more = os.read(child.stdout.fileno(), 1 << 16)
        if not more:
            return b""
        line += more
    return line


def _serve(name: str, side: str, limit: float, answers: TextIO) -> None:
    subject = next(one for one in subjects(name, limit) if (one.name, one.side) == (name, side))
    by_name = {check.name: check for check in checks(subject)}
    died: list[str] = []

    def note(hook: threading.ExceptHookArgs) -> None:
        thread = hook.thread.name if hook.thread else "a thread"
        died.append(f"; the thread {thread} died of {hook.exc_type.__name__}: {hook.exc_value}")

    threading.excepthook = note
    for line in sys.stdin:
        died.clear()
        finding = run_check(subject, by_name[line.strip()], limit)
        text = finding.text + "".join(died[:1] if finding.outcome is Outcome.FAILED else ())
        answers.write(json.dumps({"outcome": finding.outcome.value, "text": " ".join(text.split())}) + "\n")
        answers.flush()


if __name__ == "__main__":
    # What the model prints goes nowhere, and what it leaves running does not keep the process.
    with os.fdopen(os.dup(1), "w") as to_the_kit:
        os.dup2(2, 1)
        _serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), to_the_kit)
    os._exit(0)
