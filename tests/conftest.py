"""For every test: nothing outlives it, those that measure run alone, and a try that failed before is told of.

``TESTS_PROFILE=long`` gives every property many times the examples, and elsewhere too more of the same.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_SH, flock
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings

from tests.support import PROFILE
from tests.support.forking import Forkserver

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

LIMIT = 5.0
SHORT_EXAMPLES, LONG_EXAMPLES = 20, 150

# How long an example takes says more of what else the machine does than of the code. Every change is asked the same;
# what nobody has looked for yet is found by "search".
settings.register_profile("short", deadline=None, max_examples=SHORT_EXAMPLES, derandomize=True)
settings.register_profile("long", deadline=None, max_examples=LONG_EXAMPLES, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=LONG_EXAMPLES)
settings.load_profile(PROFILE)

# ---------------------------------------------------------------------- Ctrl-C, and a directory of this process's own


def pytest_configure(config: pytest.Config) -> None:
    """Have Ctrl-C heard, and give this process a directory for temporary files: what lies there is a test's.

    That of a worker lies in the one of the process that started it.
    """
    # Who starts tests in the background of a script has them ignore Ctrl-C, and so would all that they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    outside = tempfile.gettempdir()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", outside)  # pytest's own stay where everybody finds them
    within = os.environ.get("TMPDIR")
    # Short, since there are sockets in it.
    scratch = tempfile.mkdtemp(prefix="t", dir=outside)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch

    def undo() -> None:
        tempfile.tempdir = None
        del os.environ["TMPDIR"]
        if within is not None:
            os.environ["TMPDIR"] = within
        shutil.rmtree(scratch)

    config.add_cleanup(undo)


# ---------------------------------------------------------------------- collection


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have the garbage collector look neither now nor ever at thousands of tests and all that they import."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, object, object]:
    """Have one worker import a module at a time: of what is not compiled yet, others find what the first compiled."""
    if "PYTEST_XDIST_WORKER" not in os.environ or not isinstance(collector, pytest.Module):
        return (yield)
    name = str(collector.path.relative_to(collector.config.rootpath)).replace("/", "-")
    with (Path(tempfile.gettempdir()).parent / name).open("w") as importing:
        flock(importing, LOCK_EX)
        return (yield)


# ---------------------------------------------------------------------- tests that measure run alone


def turn(directory: Path, *, alone: bool) -> int:
    """Wait until a test may run, across processes; closing the descriptor that this returns ends its turn.

    Who comes takes the door first, and keeps it while waiting to be alone: nobody overtakes who waits there.
    """
    room = os.open(directory / "room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    door = os.open(directory / "door", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        flock(door, LOCK_EX)
        flock(room, LOCK_EX if alone else LOCK_SH)
    finally:
        os.close(door)
    return room


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


ALONE, FEW = "alone", 500
TURN = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Wait for the test's turn before its clock runs.

    Those that run alone come one after the other in one turn: for each of its own the others would have to stand still.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    kept = item.config.stash
    if TURN not in kept:
        # The parent's directory: the same one for all workers.
        kept[TURN] = turn(Path(tempfile.gettempdir()).parent, alone=is_alone(item))
    try:
        return (yield)
    finally:
        if not (is_alone(item) and nextitem is not None and is_alone(nextitem)):
            os.close(kept[TURN])
            del kept[TURN]


# ---------------------------------------------------------------------- what a worker tells of a test


@pytest.hookimpl(specname="pytest_runtest_protocol")
def pytest_tell_once(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Have a worker tell of a test that passed in one message instead of five: to tell takes longer than most tests do.

    Where somebody wants to know how long each part took, or tests are tried again, all of it is told.
    """
    config = item.config
    if "PYTEST_XDIST_WORKER" not in os.environ or config.pluginmanager.hasplugin("rerunfailures"):
        return None
    if config.getoption("durations") is not None or config.getoption("verbose") > 0:
        return None
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


# ---------------------------------------------------------------------- a test whose time is up has failed

TIME_IS_UP = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Generator[None, object, object]:
    """Note that a test's time is up: a command in this process may take the error that says so for one of its own."""
    result = yield
    fail = signal.getsignal(signal.SIGALRM)

    def note(number: int, frame: FrameType | None) -> None:
        item.stash[TIME_IS_UP] = True
        assert callable(fail)
        fail(number, frame)

    if callable(fail):
        signal.signal(signal.SIGALRM, note)
    return result


# ---------------------------------------------------------------------- what goes to which worker


@cache
def scope_of(root: Path, module: str) -> str:
    """What a module's tests go to one worker with.

    Those that run alone: with all others that do. Where something is made once for all of a module's tests: with each
    other, since several workers would make it several times. Else "".
    """
    text = (root / module).read_text("utf-8")
    if "\npytestmark = pytest.mark.alone" in text:
        return ALONE
    return module if 'scope="module"' in text else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Have a free worker take the next test with all its parameters, or all that goes with it: see ``scope_of``.

    One at a time would be evener still, but to hand out thousands takes longer than most of them; of a few, as there
    are of those with a QEMU or a browser, each goes by itself. Those that run alone come last: the other workers have
    nothing left to do then, and linters that began with the tests have ended.
    """
    # Only where tests run beside each other is it installed.
    from xdist.scheduler import LoadScopeScheduling

    class BySharing(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            by_itself = nodeid if len(self.collection or ()) < FEW else nodeid.partition("[")[0]
            return scope_of(config.rootpath, module) or by_itself

        def _assign_work_unit(self, node: WorkerController) -> None:
            if ALONE in self.workqueue:
                self.workqueue.move_to_end(ALONE)
            super()._assign_work_unit(node)

        def _pending_of(self, workload: dict[str, dict[str, bool]]) -> int:
            # What is done is forgotten: it would be counted again at the end of each test.
            for scope in [scope for scope, tests in workload.items() if all(tests.values())]:
                del workload[scope]
            return super()._pending_of(workload)  # type: ignore[no-any-return]

    return BySharing(config, log)


# ---------------------------------------------------------------------- processes that start at once


@pytest.fixture(scope="session", autouse=True)
def forkserver() -> Iterator[Forkserver]:
    """Have commands be forked from a process that is there once for all tests."""
    # Where tests are only handed out, nothing of migpool need be imported.
    from tests.support.amounts import touch_fewer_pages

    touch_fewer_pages()
    server = Forkserver()
    yield server
    server.close()


# ---------------------------------------------------------------------- nothing outlives a test


@dataclass(frozen=True, slots=True)
class Standing:
    """What there is of this process and below it."""

    threads: frozenset[str]
    descriptors: dict[str, str]
    processes: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls, forkserver: Forkserver) -> Standing:
        """What there is now, but for the server, which is started when it is first wanted."""
        return cls(
            threads(),
            descriptors(),
            children() - {str(forkserver.pid)},
            names(tempfile.gettempdir()),
        )

    def left_since(self, before: Standing) -> str:
        """What has come and stayed; empty if nothing."""
        opened = {fd: what for fd, what in self.descriptors.items() if before.descriptors.get(fd) != what}
        left = {
            "threads": sorted(self.threads - before.threads),
            "descriptors": opened,
            "processes": sorted(self.processes - before.processes),
            "temporary files": sorted(self.files - before.files),
        }
        return ", ".join(f"{kind} {found}" for kind, found in left.items() if found)


def threads() -> frozenset[str]:
    return frozenset(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())


def names(directory: str) -> frozenset[str]:
    # Twice a test, so with the plain functions of os here: those of pathlib take several times as long.
    with os.scandir(directory) as entries:
        return frozenset(entry.name for entry in entries)


def descriptors() -> dict[str, str]:
    found = {}
    for number in names("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 -- for the same reason
        except OSError:
            continue  # the descriptor that the listing itself used
    return found


def children() -> frozenset[str]:
    """Processes below this one, zombies among them."""
    found: set[str] = set()
    waiting = [str(os.getpid())]
    while waiting:
        tasks = f"/proc/{waiting.pop()}/task"
        try:
            for task in names(tasks):
                below = Path(f"{tasks}/{task}/children").read_text("ascii").split()
                found.update(below)
                waiting.extend(below)
        except OSError:
            continue  # it is gone
    return frozenset(found)


@pytest.fixture(autouse=True)
def nothing_outlives_the_test(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, forkserver: Forkserver
) -> Iterator[None]:
    """Fail a test that leaves something behind. What ends by itself is given a moment to do so."""
    tmp_path_factory.getbasetemp()  # made before the first look, so that it is nobody's leftover
    before = Standing.now(forkserver)
    yield
    deadline = time.monotonic() + LIMIT
    while (left := Standing.now(forkserver).left_since(before)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not left, f"{request.node.name} left behind: {left}"
    assert not request.node.stash.get(TIME_IS_UP, False), f"{request.node.name} came to no end by itself"
