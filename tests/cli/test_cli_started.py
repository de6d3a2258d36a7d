"""Commands as a user starts them, Python and all; elsewhere they are forked, which must be no different."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.scenario.schema import scenario_text
from tests.support import LONG, ROOT
from tests.support.commandline import LIMIT, MakeHolding, migpool, started
from tests.support.forking import Fork, as_a_user_does


@pytest.fixture
def as_a_user() -> Iterator[None]:
    with as_a_user_does():
        yield


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
WITHOUT_KVM = "from migpool_plugins.vcpu import kvm_machine\nkvm_machine.DEVICE_NODE = '/nowhere/kvm'\n"


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python starts as after a plain ``pip install migpool``, on a host without KVM."""
    names = {re.split(r"[^\w-]", need)[0].replace("-", "_") for extra in EXTRAS.values() for need in extra} - {
        "migpool"
    }
    code = f"import sys\nsys.modules.update(dict.fromkeys({sorted(names)}))\n{WITHOUT_KVM}"
    (tmp_path / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.mark.usefixtures("as_a_user")
def test_the_default_scenario_is_compared_without_extras_and_without_kvm_and_says_so(
    plain: dict[str, str], tmp_path: Path
) -> None:
    scenario = "default"
    if not LONG:
        (tmp_path / "smaller.toml").write_text(
            scenario_text("default").replace('"network-function"', '"network-function", size = "1MiB"')
        )
        scenario = str(tmp_path / "smaller.toml")
    models = ("--models", "inline,pool:2" if LONG else "pool:2", "--repeats", "1", "--no-report")
    ended = migpool("compare", scenario, *models, "--json", str(tmp_path / "result.json"), extra=plain)
    assert (ended.code, ended.err.count("state verified")) == (0, 1 + LONG), ended.err
    run, *more = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert (run["verified"], len(more)) == (True, LONG)
    (said,) = run["warnings"]
    assert said.startswith("at both sides, the vCPUs are left out: no backend for vCPUs: /nowhere/kvm does not exist")
    assert said.endswith("pip install 'migpool[unicorn]'")
    assert " ".join(ended.out.split()).count("the vCPUs are left out") == 1
    assert {device["name"] for device in run["devices"]} & {"vcpu", "vcpu-board"} == set()


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_do_without_vcpus_says_what_it_needs(plain: dict[str, str]) -> None:
    ended = migpool("receive", "guest", "--listen", "tcp:127.0.0.1:0", extra=plain)
    assert ended.code == 1
    assert "pip install 'migpool[unicorn]'" in ended.err.splitlines()[-1]


@pytest.mark.usefixtures("as_a_user")
def test_a_source_and_a_destination_of_ones_own(tmp_path: Path) -> None:
    with started("receive", "small", "--listen", f"unix:{tmp_path}/m.sock", "--log-format", "json") as destination:
        address = json.loads(destination.complained_of("listening on"))["address"]
        sent = migpool("send", "small", "--to", address)
        assert (sent.code, sent.err) == (0, "")
        assert "state verified" in sent.out
        received = destination.wait()
        assert received.code == 0
        assert "the machine runs here" in received.out
        assert destination.all_gone()


@pytest.mark.usefixtures("as_a_user")
def test_ctrl_c(holding: MakeHolding) -> None:
    held = holding("save_state", "source")
    with started("run", held.scenario, extra=held.environment) as command:
        held.fifo.holds()
        command.interrupt()
        ended = command.wait()
        assert ended.code == 130
        assert "Traceback" not in ended.err
        assert command.all_gone()


@pytest.mark.usefixtures("as_a_user")
def test_the_comparing_process_is_killed(holding: MakeHolding) -> None:
    held = holding("load_state", "destination")
    with started("run", held.scenario, extra=held.environment) as command:
        held.fifo.holds()
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait(10)
        assert command.all_gone()


# ---------------------------------------------------------------------- what is forked is the same


@pytest.mark.parametrize("arguments", [["--version"], ["scenario", "show", "small"], ["run", "nosuch"]], ids=" ".join)
def test_a_forked_command_says_and_returns_the_same(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "migpool", *arguments]

    def run() -> tuple[int, bytes, bytes, bool]:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
            out, err = process.communicate(timeout=LIMIT)
            assert isinstance(process, Fork)
            return process.wait(), out, err, process.forked

    *said, forked = run()
    with as_a_user_does():
        *also, afresh = run()
    assert said == also
    assert forked
    assert not afresh


def test_a_forked_process_has_a_session_of_its_own_and_ends_as_it_was_ended(holding: MakeHolding) -> None:
    held = holding("save_state", "source")
    with started("run", held.scenario, extra=held.environment) as command:
        assert isinstance(command.process, Fork)
        assert command.process.forked
        _, side = held.fifo.holds()
        pids = command.alive()
        assert {command.process.pid, side} < set(pids)
        assert [os.getsid(pid) for pid in pids] == pids
        command.process.kill()
        assert command.process.wait(10) == -signal.SIGKILL
        assert command.all_gone()
