"""Checks in a process of their own, so that a plug-in may hang, spin or exit as it likes: the kit always ends.

The kit sends the name of a check, the child runs it and sends what came of it. A process that has failed a check, or
does not answer, is killed with all that came from it, and the next check has a new one. The plug-in is imported there
alone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Final

import migpool
from migpool.conformance.check import Check, CheckResult, Details, Outcome, run_check
from migpool.conformance.devices import Subject as Devices
from migpool.conformance.devices import checks as checks_of_devices
from migpool.conformance.models import checks as checks_of_model
from migpool.conformance.models.bench import subjects
from migpool.core.device_calls import exits_told
from migpool.scenario.plugins import Kind, load_device_plugin, read_options

GRACE: Final = 5.0
"""Seconds more than a check may take that the child has to answer."""
START: Final = 10.0
"""Seconds more for one that has to be started first."""
DUMPED: Final = 0.5
"""Seconds for a process that is asked where it stands."""
FRAME: Final = re.compile(r'^  File "(.+)", line (\d+) in (\S+)', re.MULTILINE)
OURS: Final = (f"{Path(migpool.__file__).parent}/", f"{Path(os.__file__).parent}/", "<frozen")
"""How frames begin that are no plug-in's; packages that are installed into Python's own folder are none of its."""

Answer = tuple[Outcome, str, Details]


@dataclass(frozen=True, slots=True)
class Task:
    """What a child checks.

    Arguments:
        kind, name: the plug-in.
        limit: seconds that one check may take.
        side: of a threading model.
        options, count, models, every_wait, comparable: of devices; as for
            :func:`~migpool.conformance.course.device_course`.
    """

    kind: Kind
    name: str
    limit: float
    side: str = ""
    options: tuple[str, ...] = ()
    count: int = 1
    models: str = ""
    every_wait: bool = False
    comparable: bool = True


class ChildRunner:
    """Runs checks in a child, which is started when it is needed. Close it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._child: tuple[subprocess.Popen[bytes], Connection, IO[bytes]] | None = None

    def run(self, check: Check[Any], within: float = float("inf")) -> CheckResult:
        """What comes of a check.

        Arguments:
            within: seconds after which it is ended in any case.
        """
        began = time.monotonic()
        outcome, text, details = self._ask(str(check), within)
        if outcome is Outcome.FAILED:
            self.close()
        return CheckResult(check.name, check.under, check.about, outcome, text, time.monotonic() - began, details)

    def close(self) -> None:
        """End the child and all that came from it."""
        if self._child is not None:
            process, connection, printed = self._child
            self._child = None
            with printed, connection, process:
                kill_with_children(process)

    def _ask(self, name: str, within: float) -> Answer:
        grace = GRACE if self._child else START + GRACE
        process, connection, printed = self._child = self._child or self._start()
        patience = min(self._task.limit + grace, within)
        with contextlib.suppress(OSError):
            connection.send(name)
        try:
            if not connection.poll(patience):
                stack = _dumped(process, printed)
                where = f": it stands at {stack[-1]}" if stack else ""
                return (
                    Outcome.FAILED,
                    f"the process has not answered within {patience:.0f} s{where}",
                    Details(stack, held=True),
                )
            answer: Answer = connection.recv()
        except (EOFError, OSError):
            status = process.wait()
            how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
            what = "devices" if self._task.kind == "device" else "model"
            return Outcome.FAILED, f"the {what} ended the process, {how}", Details(_frames(printed), held=True)
        return answer

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection, IO[bytes]]:
        ours, theirs = Pipe()
        printed = tempfile.TemporaryFile()  # noqa: SIM115 -- by close()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, json.dumps(asdict(self._task)), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=printed,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return process, ours, printed


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that came from it, as far as the system tells."""
    found = [process.pid]
    for pid in found:
        found += children_of(pid)
    for pid in found[1:]:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.kill()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and not waited for; none where the system does not tell."""
    try:
        lists = [task.joinpath("children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [int(child) for text in lists for child in text.split()]


def _dumped(process: subprocess.Popen[bytes], printed: IO[bytes]) -> tuple[str, ...]:
    """Where a process stands that answers nothing: it says so from a signal, whatever its threads do."""
    with contextlib.suppress(OSError):
        process.send_signal(signal.SIGUSR1)
        time.sleep(DUMPED)
    return _frames(printed)


def _frames(printed: IO[bytes]) -> tuple[str, ...]:
    """The frames of the first thread that was dumped in a plug-in's own code, from there on, the outermost first."""
    printed.seek(0)
    for thread in printed.read().decode(errors="replace").split("most recent call first")[1:]:
        frames = [match.expand(r"\1:\2 \3") for match in FRAME.finditer(thread)]
        foreign = [at for at, frame in enumerate(frames) if not frame.startswith(OURS) or "site-packages" in frame]
        if foreign:
            return tuple(frames[: foreign[-1] + 1][::-1])
    return ()


def _serve(task: Task, kit: Connection) -> None:
    died: list[str] = []

    def note(hook: threading.ExceptHookArgs) -> None:
        thread = hook.thread.name if hook.thread else "a thread"
        died.append(f"; the thread {thread} died of {hook.exc_type.__name__}: {hook.exc_value}")

    threading.excepthook = note
    subject: Any = None
    by_name: Mapping[str, Check[Any]] = {}
    with contextlib.suppress(EOFError):
        while True:
            name = kit.recv()
            if subject is None:
                try:
                    subject, by_name = _imported(task)
                except _NotImported as error:
                    kit.send(error.answer)
                    return
            died.clear()
            finding = run_check(subject, by_name[name], task.limit)
            text = finding.text + "".join(died[:1] if finding.outcome is Outcome.FAILED else ())
            kit.send((finding.outcome, " ".join(text.split()), finding.details))


class _NotImported(Exception):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def _imported(task: Task) -> tuple[Any, Mapping[str, Check[Any]]]:
    """The subject and its checks. The import is a check, too: it may fail, hang or exit.

    Raises:
        _NotImported: it has.
    """
    made: list[Any] = []

    def run(_: object) -> str:
        if task.kind == "scheduler":
            made.append(next(one for one in subjects(task.name, task.limit) if one.side == task.side))
        else:
            plugin = load_device_plugin(task.name)
            made.append(Devices(task.name, plugin, read_options(task.options), task.count, task.comparable))
        return ""

    finding = run_check(_NOTHING, Check("import", "", "", run), task.limit)
    if finding.outcome is not Outcome.PASSED:
        details = finding.details if finding.details.held else replace(finding.details, refused=2)
        raise _NotImported((finding.outcome, finding.text, details))
    found = checks_of_model(made[0]) if task.kind == "scheduler" else checks_of_devices(task.models, task.every_wait)
    return made[0], {str(check): check for check in found}


class _Nothing:
    """What an import is made of."""

    def fresh(self) -> _Nothing:
        return self

    def abort(self) -> None:
        return


_NOTHING: Final[Any] = _Nothing()


def _end_with(kit: Connection) -> None:
    """End with the kit, whatever the check does; and all that came from it and stayed in the process group."""
    watch = select.poll()
    watch.register(kit, 0)  # nothing but the end of it
    watch.poll()
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR1, 2)
    kit = Connection(int(sys.argv[2]))
    form = json.loads(sys.argv[1])
    threading.Thread(target=_end_with, args=(kit,), name="lifeline", daemon=True).start()
    really = os._exit
    with exits_told(lambda text: kit.send((Outcome.FAILED, text, Details(held=True)))):
        _serve(Task(**form | {"options": tuple(form["options"])}), kit)
    really(0)  # what the plug-in leaves running does not keep the process


if __name__ == "__main__":
    main()
