"""The kit for authors of threading models: each promise has a model that breaks it and a check that says so."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from migpool.conformance.check import CheckResult, Outcome
from migpool.conformance.child import ChildRunner, Task
from migpool.conformance.models import Subject, checks, subjects
from tests.support import broken_models
from tests.support.commandline import RING_SCENARIO, migpool
from tests.support.forking import as_a_user_does
from tests.support.new_package import announce, installed, run_pytest

LIMIT, ROOMY = 10.0, 100.0
"""Seconds for a check: of a model that waits until a part of them is over, and of one that goes on by itself."""
WAITS = (
    *("Drops", "DropsOne", "NewestFirst", "NeverSaysEnded", "IgnoresCancel", "WaitsForItself", "TwoThreads"),
    *("LeavesAThread", "UncountedThreads", "ForgetsRelease", "BlocksInClose", "EndlessDrain"),
)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package with the broken models, in this module."""
    names = [name for name, kind in vars(broken_models).items() if inspect.isclass(kind) and is_ours(kind)]
    lines = [f"{name} = broken_models:{name}" for name in names]
    lines.append("NoImport = broken_models.nowhere:Model")
    announced = "\n".join(["[migpool.schedulers]", *lines, ""])
    with installed(broken_models, "broken-models", tmp_path_factory.mktemp("broken"), announced):
        yield


def is_ours(kind: type) -> bool:
    return kind.__module__ == broken_models.__name__


def found(name: str, check_name: str) -> CheckResult:
    limit = LIMIT if name in WAITS else ROOMY
    subject: Subject = next(one for one in subjects(name, limit) if one.side == "destination")
    check = next(one for one in checks(subject) if one.name == check_name)
    with closing(ChildRunner(Task("scheduler", subject.name, limit, subject.side))) as runner:
        return runner.run(check)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("Drops", "runs", "0 of 4 jobs ended; accepted and never begun: device-0 (load), device-1 (load)"),
        ("DropsOne", "runs", "3 of 4 jobs ended; accepted and never begun: device-2 (load)"),
        ("ForgetsAccept", "runs", "accept"),
        ("ForgetsSuper", "runs", "its setup does not call super().setup(setup)"),
        ("Raises", "runs", "submit raised ValueError: oops"),
        ("RaisesInSetup", "runs", "setup raised KeyError: 'nothing'"),
        ("NewestFirst", "begins-in-order", "(load) waits for chunk 0 for"),
        ("RunsTwice", "runs", "it runs device-0 (load)"),
        ("TwoThreads", "one-at-a-time", ""),
        ("Swallows", "first-error", "did not raise DeviceError: device-0, chunk 0"),
        ("Swallows", "unexpected-error", "did not raise DeviceError: device-0, chunk 0"),
        ("NeverSaysEnded", "runs", "run, and not reported as ended: device-0 (load)"),
        ("LeavesAThread", "leaves-no-thread", "after close these threads are left: left over"),
        ("UncountedThreads", "leaves-no-thread", "start threads by self.spawn and self.pool"),
        ("ForgetsRelease", "leaves-no-thread", "these threads still run: one"),
        ("BlocksInClose", "leaves-no-thread", "close has not returned after 1 s"),
        ("EndlessDrain", "drain-with-nothing", "drain has not returned after 1 s"),
        ("EarlyDrain", "drain-waits", "drain returned when"),
        ("RunsAfterClose", "after-close", "submit after close was not refused"),
        ("IgnoresCancel", "cancels", "drain has not returned after 1 s"),
        ("WaitsForItself", "jobs-of-jobs", "accepted and never begun: device-1 (load)"),
        ("ExitsTheProcess", "runs", "os._exit(3), which ends the process"),
    ],
)
def test_a_broken_promise_is_found_by_its_own_check(name: str, check: str, words: str) -> None:
    finding = found(name, check)
    assert finding.outcome is Outcome.FAILED
    assert words in finding.text
    assert "\n" not in finding.text


@pytest.mark.usefixtures("broken")
def test_what_they_are_made_of_keeps_every_promise() -> None:
    for subject in subjects("OneThread", ROOMY):
        with closing(ChildRunner(Task("scheduler", subject.name, ROOMY, subject.side))) as runner:
            for check in checks(subject):
                finding = runner.run(check)
                assert finding.outcome is Outcome.PASSED, finding.text


@pytest.mark.usefixtures("broken")
def test_the_command_names_the_model_and_what_is_wrong(tmp_path: Path) -> None:
    with as_a_user_does():
        done = migpool("conformance", "--model", "Raises", "--limit", "20", "--json", str(tmp_path / "report.json"))
    assert done.code == 1
    assert "Raises (broken-models 1.0) does not conform: 2 of 2 checks failed, 32 not run" in done.out
    assert "Traceback" not in done.out + done.err
    read = json.loads((tmp_path / "report.json").read_text())
    assert {one["text"] for one in read["checks"] if one["outcome"] == "failed"} == {
        f"threading model 'Raises' at the {side}: submit raised ValueError: oops" for side in ("source", "destination")
    }


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "NotAModel"], 1, "is no subclass of migpool.schedulers.base.Scheduler"),
        (["--model", "NoImport"], 1, "cannot be imported: ModuleNotFoundError"),
        (["--model", "nothing"], 2, "there is no threading model 'nothing'; there are:"),
        (["--model", "vfio"], 2, "vfio is a device plug-in: migpool conformance vfio"),
        (["pool"], 2, "pool is a threading model: migpool conformance --model pool"),
        (["--model", "pool+receiver"], 2, "names two models"),
        (["--model", "pool:0"], 2, "after pool: stands the number of workers"),
        (["--model", "pool", "--count", "2"], 2, "are for devices"),
        (["vfio", "--model", "pool"], 2, "name one thing to check"),
        ([], 2, "name one thing to check"),
    ],
)
def test_what_cannot_be_checked_is_said_in_one_line(arguments: list[str], code: int, words: str) -> None:
    done = migpool("conformance", *arguments)
    assert done.code == code
    assert words in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("Drops+pool", "accepted and never begun: ringnic (save), ringnic#1 (save), ringnic#2 (save)"),
        ("pool:1+NewestFirst", "'NewestFirst' at the destination: no headway for"),
        ("ForgetsAccept+pool", "'ForgetsAccept' at the source: "),
        ("pool+ForgetsSuper", "'ForgetsSuper': its setup does not call super().setup(setup)"),
        ("Raises+pool", "'Raises' at the source: submit raised ValueError: oops"),
        ("NeverSaysEnded+pool", "run, and not reported as ended: ringnic (save)"),
    ],
)
def test_a_migration_names_the_model_and_where_its_jobs_stand(tmp_path: Path, model: str, words: str) -> None:
    scenario = tmp_path / "made.toml"
    scenario.write_text(f"{RING_SCENARIO}\n[limits]\npeer = 8\n")
    done = migpool("run", str(scenario), "--model", model)
    assert done.code == 1
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_new_model_conforms_as_its_own_package(tmp_path: Path) -> None:
    made = migpool("new-model", "two-lanes", "--into", str(tmp_path))
    assert made.code == 0, made.err
    package = tmp_path / "two-lanes"
    announce(package)
    done = run_pytest(package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "34 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "words"), [("pool", "is installed already"), ("My Model", "is no name for a plug-in")]
)
def test_a_new_model_needs_a_name_of_its_own(tmp_path: Path, name: str, words: str) -> None:
    done = migpool("new-model", name, "--into", str(tmp_path))
    assert done.code == 2
    assert words in done.err
