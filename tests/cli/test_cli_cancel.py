"""Ctrl-C at every state: one orderly cancel, exit code 130, and nothing left behind."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.commandline import MakeHolding, started

BEFORE_THE_MACHINE_MOVES = [
    pytest.param("save_setup", "source", id="setup at the source"),
    pytest.param("load_setup", "destination", id="setup at the destination"),
    pytest.param("iterate", "source", id="active"),
    pytest.param("stop", "source", id="switchover: stopping"),
    pytest.param("save_state", "source", id="switchover: saving"),
    pytest.param("load_state", "destination", id="switchover: loading"),
    pytest.param("load_config", "destination", id="switchover: loading the config"),
]


@pytest.mark.parametrize(("method", "side"), BEFORE_THE_MACHINE_MOVES)
def test_ctrl_c_cancels_a_run_in_order(method: str, side: str, holding: MakeHolding) -> None:
    held = holding(method, side)
    with started("run", held.scenario, extra=held.environment) as command:
        assert held.fifo.holds()[0] == side
        command.interrupt()
        ended = command.wait()
        assert ended.code == 130
        assert "migpool: cancelled; 0 of 1 run had completed" in ended.err
        assert "Traceback" not in ended.err
        assert ended.out == ""
        assert command.all_gone()


def test_ctrl_c_before_anything_has_begun(holding: MakeHolding) -> None:
    held = holding("save_setup", "source")
    with started("run", held.scenario, "-v", "--log-format", "json", extra=held.environment) as command:
        command.complained_of('"side": "destination"')
        command.interrupt()
        assert command.wait().code == 130
        assert command.all_gone()


def test_ctrl_c_once_the_machine_runs_lets_the_migration_complete(holding: MakeHolding) -> None:
    held = holding("verify", "destination", seconds=2)
    with started("run", held.scenario, extra=held.environment) as command:
        held.fifo.holds()
        command.interrupt()
        ended = command.wait()
        assert ended.code == 130
        assert "1 of 1 run had completed" in ended.err
        assert command.all_gone()


def test_a_second_ctrl_c_changes_nothing_but_is_answered(holding: MakeHolding) -> None:
    held = holding("verify", "destination", seconds=3)
    with started("run", held.scenario, extra=held.environment) as command:
        held.fifo.holds()
        command.interrupt()
        command.complained_of("migpool: cancelling ...")
        command.interrupt()
        command.complained_of("migpool: still cancelling")
        assert command.wait().code == 130
        assert command.all_gone()


def test_sigterm_cancels_a_run_too(holding: MakeHolding) -> None:
    held = holding("save_state", "source")
    with started("run", held.scenario, extra=held.environment) as command:
        held.fifo.holds()
        command.interrupt(signal.SIGTERM)
        assert command.wait().code == 143
        assert command.all_gone()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_source_of_ones_own_is_cancelled_and_its_destination_hears_of_it(
    number: signal.Signals, code: int, holding: MakeHolding
) -> None:
    held = holding("save_state", "source")
    receive = ("receive", held.scenario, "--listen", "tcp:127.0.0.1:0")
    with started(*receive, extra=held.environment) as destination:
        address = destination.complained_of("listening on").split()[-1]
        with started("send", held.scenario, "--to", address, extra=held.environment) as source:
            held.fifo.holds()
            source.interrupt(number)
            ended = source.wait()
            assert ended.code == code
            assert "migpool: cancelled: cancelled at the source" in ended.err
            assert source.all_gone()
        ended = destination.wait()
        assert ended.code == 1
        assert "failed" in ended.err
        assert "cancelled" in ended.err
        assert destination.all_gone()


def test_a_destination_that_waits_for_a_source_is_cancelled() -> None:
    with started("receive", "small", "--listen", "tcp:127.0.0.1:0", "--count", "0") as command:
        command.complained_of("listening on")
        command.interrupt()
        ended = command.wait()
        assert ended.code == 130
        assert "migpool: cancelled" in ended.err
        assert command.all_gone()


@pytest.mark.parametrize(
    ("method", "side"), [("save_setup", "source"), ("save_state", "source"), ("load_state", "destination")]
)
def test_when_the_comparing_process_is_killed_everything_ends(method: str, side: str, holding: MakeHolding) -> None:
    held = holding(method, side)
    with started("run", held.scenario, extra=held.environment) as command:
        held.fifo.holds()
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait(10)
        assert command.all_gone()
