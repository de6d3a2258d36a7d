"""One end is killed at any instant: the guest never runs twice, and the end that is left says rightly where it runs.

The end that dies is a process of its own, killed at one of its own waits; the end that is left runs in this one, so
that its guest can be looked at. Killing the source's process ends the guest there, whatever migpool does; killing the
destination's must leave the guest at the source, unless the destination had it running already.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.migration.report import SideReport
from migpool.migration.states import State
from tests.support import LONG, ROOT
from tests.support.guests import ends_for, group_of, need, run_end, steps

LIMIT = 60.0
FEW, MANY = (20 if LONG else 3), 100


class Other:
    """The other end, in a process of its own.

    Arguments:
        side: which end it is.
        path: of the socket.
        kill_at: at which of its waits it dies; 0 for never.
    """

    def __init__(self, side: str, path: str, kill_at: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.guestend", side, "kvm", path, str(kill_at)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> list[str]:
        """What it printed, once it is gone."""
        out, _ = self._process.communicate(timeout=LIMIT)
        return out.split("\n")


def waits(printed: list[str]) -> int:
    return next(int(line.removeprefix("waits ")) for line in printed if line.startswith("waits "))


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many waits each end has when nobody dies."""
    need("kvm")
    folder = tmp_path_factory.mktemp("usual")
    found = {}
    for dying in ("source", "destination"):
        report, printed, _ = survived(dying, folder / dying, 0)
        assert report.outcome is State.COMPLETED, report.error
        found[dying] = waits(printed)
    return found


def survived(dying: str, path: Path, kill_at: int) -> tuple[SideReport, list[str], bool]:
    """Migrate between an end here and one that dies.

    Returns:
        What is told here, what the other one printed, and whether the guest runs here.
    """
    here = "source" if dying == "destination" else "destination"
    with ends_for(here, "kvm") as machine:
        before = steps([slot.device for slot in machine]) if here == "source" else [0, 0]
        if here == "source":
            other = Other(dying, str(path), kill_at)
            report = run_end(here, machine, str(path))
        else:
            listens = threading.Event()
            reports: list[SideReport] = []
            thread = threading.Thread(
                target=lambda: reports.append(run_end(here, machine, str(path), listening=lambda _: listens.set()))
            )
            thread.start()
            assert listens.wait(LIMIT)
            other = Other(dying, str(path), kill_at)
            thread.join(LIMIT)
            assert not thread.is_alive()
            report = reports[0]
        printed = other.end()
        runs = running(machine)
        if runs:
            for slot in machine:
                slot.device.verify()
            after = steps([slot.device for slot in machine])
            assert all(now > then for now, then in zip(after, before, strict=True))
        return report, printed, runs


def running(machine: Machine) -> bool:
    """Whether the guest's vCPUs run here: all of them or none."""
    standing = {thread.standing for thread in group_of([slot.device for slot in machine]).threads}
    assert len(standing) == 1, "one vCPU runs and another one stands"
    return standing == {False}


def judge(dying: str, report: SideReport, printed: list[str], runs: bool) -> None:
    if dying == "destination":
        # Running there means that it was running when the process died; here it may go on only if it never was.
        assert runs == (report.outcome in (State.FAILED, State.CANCELLED)), report.error
        if "running" in printed:
            assert not runs, "the destination had said that it runs"
        else:
            assert runs or report.outcome is State.UNCONFIRMED, report.error
        return
    # The source is dead, and its guest with it.
    assert runs == (report.outcome in (State.COMPLETED, State.UNCONFIRMED)), report.error
    if "switchover" not in printed:
        assert not runs, "the source had not stopped yet"
    if "running" in printed:
        assert runs, "the source had heard that it runs here"


def sweep(usual: dict[str, int], folder: Path, count: int, seed: int) -> None:
    numbers = random.Random(seed)
    for turn in range(count):
        dying = ("source", "destination")[turn % 2]
        kill_at = numbers.randint(1, usual[dying])
        report, printed, runs = survived(dying, folder / str(turn), kill_at)
        try:
            judge(dying, report, printed, runs)
        except AssertionError as error:
            raise AssertionError(f"turn {turn}, seed {seed}: {dying} killed at wait {kill_at}: {error}") from error


@pytest.mark.timeout(300)
def test_an_end_is_killed_at_some_instants(usual: dict[str, int], tmp_path: Path) -> None:
    sweep(usual, tmp_path, FEW, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_an_end_is_killed_at_many_instants(usual: dict[str, int], tmp_path: Path) -> None:
    sweep(usual, tmp_path, MANY, seed=2)
