"""A destination that may take its budget of memory and 32 MiB more than it has, in whatever order the state comes."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from tests.support import LONG
from tests.support.certificates import Certificates
from tests.support.commandline import migpool, scenario_file, started
from tests.support.disorder import Disorder
from tests.support.forking import as_a_user_does
from tests.support.memory_cgroup import limited, what_is_missing

MIB = 1 << 20
BUDGET = 4 * MIB
SPARE = 32 * MIB
STATE = 16
"""MiB of each of three devices: together a third more than the destination may take."""
DEVICES = [f'plugin = "vfio"\ncount = 3\noptions = {{profile = "instant", size = "{STATE}MiB", chunk = "256KiB"}}']
TABLES = f"""[channels]
count = 4
[memory]
budget = "{BUDGET >> 20}MiB"
chunk = "256KiB"
[limits]
peer = 60
connect = 60
"""


@pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())
@pytest.mark.parametrize("seed", range(1, 9 if LONG else 2))
@pytest.mark.parametrize("model", ["pool", "per-device+receiver"])
def test_the_destination_stays_within_its_budget(tmp_path: Path, model: str, seed: int) -> None:
    scenario, result = scenario_file(tmp_path / "s.toml", DEVICES, TABLES), tmp_path / "result.json"
    tls = ("--tls", str(Certificates(tmp_path).good), "--tls-hostname", "localhost")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        with as_a_user_does():  # one that was forked would take its parent's pages as it writes to them
            command = ("receive", scenario, "--listen", f"tcp:127.0.0.1:{port}", "-m", model, *tls[:2])
            destination = stack.enter_context(started(*command))
        destination.complained_of(f"tcp:127.0.0.1:{port}")  # the line may come in pieces
        with limited(destination.process.pid, BUDGET + SPARE) as most, Disorder(port, seed) as relay:
            address = f"tcp:127.0.0.1:{relay.port}"
            sent = migpool("send", scenario, "--to", address, "-m", model.split("+")[0], *tls, "--json", str(result))
            received = destination.wait()
            assert (sent.code, received.code) == (0, 0), (sent.err, received.err)
            if most.exists():
                assert BUDGET // 2 < int(most.read_text()) <= BUDGET + SPARE
    (run,) = json.loads(result.read_text())["runs"]
    assert run["verified"]
    assert run["bytes"] > 3 * STATE * MIB
