"""Run CPython's own tests of ThreadPoolExecutor with a WorkerPool in its place; a program, started by the test module.

``python cpython_runner.py list`` prints the names of the test classes that apply, one a line, or nothing if this Python
has no ``test.test_concurrent_futures``. ``python cpython_runner.py run NAME`` runs one of them and exits with 0 if
every test in it passed.

A process of its own, since it replaces ``concurrent.futures.ThreadPoolExecutor`` for everybody in it.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import pkgutil
import sys
import types
import unittest
from pathlib import Path

from migpool.workers.dispatcher import UNBOUNDED, Dispatcher
from migpool.workers.future import TaskFuture
from migpool.workers.pool import WorkerPool

SUITE = "test.test_concurrent_futures"

# Put before the programs that the tests run in processes of their own: those are to exit with a WorkerPool, too.
PREAMBLE = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), *filter(None, sys.path)]!r}
from tests.support import cpython_runner
cpython_runner.substitute()
"""


def substitute() -> None:
    """Put a WorkerPool in the place of ThreadPoolExecutor: one of the same name, which the tests look for."""
    substitute = types.new_class("ThreadPoolExecutor", (WorkerPool,))
    vars(concurrent.futures)["ThreadPoolExecutor"] = substitute


def bare_future() -> TaskFuture[None]:
    """A future that no pool knows of, of the name that the tests look for in its ``repr``."""
    dispatcher = Dispatcher(1, UNBOUNDED, None, "unused", None)
    future: TaskFuture[None] = types.new_class("Future", (TaskFuture,))(dispatcher, tuple, (), {})
    return future


def modules() -> list[types.ModuleType]:
    """The modules of the suite: one up to Python 3.11, a package from 3.12 on, none where ``test`` is not installed."""
    try:
        suite = importlib.import_module(SUITE)
    except ImportError:
        return []
    names = [
        info.name for info in pkgutil.iter_modules(getattr(suite, "__path__", [])) if info.name.startswith("test_")
    ]
    return [suite, *(importlib.import_module(f"{SUITE}.{name}") for name in names)]


def test_classes() -> dict[str, type[unittest.TestCase]]:
    """The test classes that concern thread pools and their futures, by name."""
    found = {}
    for module in modules():
        for name, value in vars(module).items():
            applies = name.startswith("ThreadPool") or name == "FutureTests"
            if applies and isinstance(value, type) and issubclass(value, unittest.TestCase):
                found[name] = value
    return found


def run(name: str) -> bool:
    """Run one class; True if at least one test ran and none failed."""
    case = test_classes()[name]
    module = vars(sys.modules[case.__module__])
    if "assert_python_ok" in module:
        original = module["assert_python_ok"]
        module["assert_python_ok"] = lambda flag, program: original(flag, PREAMBLE + program)
    if name == "FutureTests":
        for user in modules():
            if "Future" in vars(user):
                vars(user)["Future"] = bare_future
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    outcome = unittest.TextTestRunner(verbosity=2).run(tests)
    return outcome.testsRun > 0 and outcome.wasSuccessful()


if __name__ == "__main__":
    substitute()
    if sys.argv[1] == "list":
        print("\n".join(sorted(test_classes())))  # noqa: T201
    else:
        sys.exit(not run(sys.argv[2]))
