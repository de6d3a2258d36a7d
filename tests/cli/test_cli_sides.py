"""``migpool send`` and ``migpool receive``: two processes of the user's own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from migpool.lab.run.result import LabResult
from tests.support.commandline import MakeHolding, here, migpool, scenario_file, started


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_several_migrations_in_one_pair_of_processes(transport: str, tmp_path: Path) -> None:
    where = "tcp:127.0.0.1:0" if transport == "tcp" else f"unix:{tmp_path}/m.sock"
    result, trace = tmp_path / "result.json", tmp_path / "trace.json"
    receive = ("receive", "small", "--listen", where, "--count", "3", "-m", "pool+receiver", "--log-format", "json")
    with started(*receive) as destination:
        address = json.loads(destination.complained_of("listening on"))["address"]
        ended = migpool(
            *("send", "small", "--to", address, "--count", "3", "-m", "per-device"),
            *("--json", str(result), "--trace", str(trace)),
        )
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.count("state verified") == 3
        received = destination.wait()
        assert received.code == 0
        assert received.out.count("the machine runs here") == 3
        listened = [json.loads(line)["address"] for line in received.err.splitlines()]
        assert listened == [address] * 3
        assert destination.all_gone()
    runs = LabResult.model_validate_json(result.read_text()).runs
    assert [run.repeat for run in runs] == [1, 2, 3]
    assert all(run.verified and run.downtime_ms and run.threads.destination is None for run in runs)
    assert json.loads(trace.read_text())["traceEvents"]
    assert not (tmp_path / "m.sock").exists()


def test_migrations_in_a_row_leave_no_thread_and_no_descriptor_at_the_destination(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/m.sock"
    counts: list[tuple[int, int]] = []
    with started("receive", "small", "--listen", address, "--count", "0") as destination:
        for number in (2, 5):
            assert here("send", "small", "--to", address, "--count", str(number)).code == 0
            # It waits for the next one: what belonged to those before must be gone.
            destination.complained_of("listening on", times=sum((2, 5)[: len(counts) + 1]) + 1)
            counts.append(destination.threads_and_descriptors())
        destination.interrupt()
        assert destination.wait().code == 130
    assert counts[0] == counts[1]


def test_a_receiver_that_is_stopped_when_the_machine_runs_says_that_it_runs_here(holding: MakeHolding) -> None:
    held = holding("verify", "destination", seconds=2)
    with started("receive", held.scenario, "--listen", "tcp:127.0.0.1:0", extra=held.environment) as destination:
        address = destination.complained_of("listening on").split()[-1]
        with started("send", held.scenario, "--to", address, extra=held.environment) as source:
            held.fifo.holds()
            destination.process.terminate()
            sent, received = source.wait(), destination.wait()
    assert (sent.code, received.code) == (0, 143)
    assert "the machine runs here" in received.out
    assert received.err.splitlines()[-1] == "migpool: cancelled after the migration had completed"


def test_a_receiver_without_a_count_outlives_a_migration_that_fails(tmp_path: Path) -> None:
    fault = '{device = 0, side = "source", at = 0, kind = "error"}'
    bad = scenario_file(
        tmp_path / "bad.toml",
        [f'plugin = "vfio"\noptions = {{profile = "tiny", fault = {fault}}}'],
        "[limits]\npeer = 5",
    )
    good = scenario_file(tmp_path / "good.toml", ['plugin = "vfio"\noptions = {profile = "tiny"}'])
    with started("receive", good, "--listen", f"unix:{tmp_path}/m.sock", "--count", "0") as destination:
        destination.complained_of("listening on")
        failed = here("send", bad, "--to", f"unix:{tmp_path}/m.sock")
        assert failed.code == 1
        assert "0000:01:00.0/vfio, chunk 0" in failed.err
        destination.complained_of("run 1: failed")
        assert here("send", good, "--to", f"unix:{tmp_path}/m.sock").code == 0
        destination.interrupt()
        assert destination.wait().code == 130
        assert destination.all_gone()


@pytest.mark.parametrize(
    ("method", "killed"), [("save_state", "source"), ("load_config", "destination")], ids=["source", "destination"]
)
def test_when_one_side_is_killed_the_other_says_so_within_its_limit(
    method: str, killed: str, holding: MakeHolding
) -> None:
    held = holding(method, killed)
    receive = ("receive", held.scenario, "--listen", "tcp:127.0.0.1:0")
    with started(*receive, extra=held.environment) as destination:
        address = destination.complained_of("listening on").split()[-1]
        with started("send", held.scenario, "--to", address, extra=held.environment) as source:
            os.kill(held.fifo.holds()[1], signal.SIGKILL)
            left = destination if killed == "source" else source
            ended = left.wait()
            assert ended.code == 1
            line = ended.err.splitlines()[-1]
            assert line.startswith("migpool: pool, run 1: failed: ")
            assert "Traceback" not in ended.err
            source.process.wait(10)
            destination.process.wait(10)
            assert source.all_gone()
            assert destination.all_gone()


def test_a_source_without_a_destination_gives_up_and_says_what_to_do(tmp_path: Path) -> None:
    scenario = scenario_file(
        tmp_path / "hasty.toml", ['plugin = "vfio"\noptions = {profile = "tiny"}'], "[limits]\nconnect = 0.3"
    )
    ended = here("send", scenario, "--to", f"unix:{tmp_path}/nobody")
    assert ended.code == 1
    assert "nobody answered within" in ended.err
    assert "start the destination first" in ended.err


def test_an_address_in_use_ends_a_receiver_even_without_a_count(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    ended = here("receive", "small", "--listen", f"unix:{taken}", "--count", "0")
    assert ended.code == 1
    assert "cannot listen there" in ended.err
