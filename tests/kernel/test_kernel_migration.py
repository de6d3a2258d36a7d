"""Whole migrations between devices of a real driver: there and back, under every threading model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from migpool.device import Device, DeviceContext, OptionValue, Side
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.scenario.model_syntax import all_models, parse_model
from migpool.transport.address import Address
from migpool_plugins.vfio import devices
from tests.kernel.mtty import REACHED, STATE_SIZE, Uart, make_devices, saved
from tests.support.rig import Pair

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]
CHUNK = 4096
LIMIT = 250.0
TEXTS = ((b"one, first port", b"one, second"), (b"two", b""))


@dataclass(frozen=True)
class Hosts:
    """Two devices here, and two there, by their UUIDs."""

    here: Sequence[str]
    there: Sequence[str]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with make_devices(4) as names:
        yield Hosts(names[:2], names[2:])


def fill(names: Sequence[str], texts: Sequence[Sequence[bytes]]) -> None:
    for name, text in zip(names, texts, strict=True):
        with Uart(name) as uart:
            uart.put(*text)


def states(names: Sequence[str]) -> list[bytes]:
    found = []
    for name in names:
        with Uart(name) as uart:
            found.append(saved(uart))
    return found


def opened(side: Side, names: Sequence[str], *, precopy: bool) -> list[Device]:
    options: dict[str, OptionValue] = {"backend": "kernel", "device": names, "precopy": precopy}
    return devices(DeviceContext(side, options, len(names)))


def move(begin: Sequence[str], end: Sequence[str], model: str, folder: Path, *, precopy: bool) -> SideReport:
    """Migrate devices, which must go well."""
    sent, received = run(begin, end, model, folder, precopy=precopy)
    assert (sent.error, received.error) == ("", "")
    assert sent.outcome is received.outcome is State.COMPLETED
    return sent


def run(
    begin: Sequence[str], end: Sequence[str], model: str, folder: Path, *, precopy: bool
) -> tuple[SideReport, SideReport]:
    """Migrate devices over TCP on the loopback interface; both sides' devices are closed afterwards."""
    parts = parse_model(model)
    source, destination = opened("source", begin, precopy=precopy), opened("destination", end, precopy=precopy)
    try:
        pair = Pair(
            source,
            destination,
            settings=Settings(channels=2, chunk=CHUNK, budget=8 * CHUNK, peer_limit=60),
            models=(parts.source.scheduler, parts.destination.scheduler),
            listen=Address("127.0.0.1"),
        )
        return pair.run(folder)
    finally:
        for device in (*source, *destination):
            device.close()


@pytest.mark.parametrize("precopy", [True, False], ids=["pre-copy", "stop-copy"])
@pytest.mark.parametrize("model", all_models())
def test_there_and_back(hosts: Hosts, tmp_path: Path, model: str, precopy: bool) -> None:
    fill(hosts.here, TEXTS)
    before = states(hosts.here)
    assert len({*before, *states(hosts.there)}) == 3
    sent = move(hosts.here, hosts.there, model, tmp_path, precopy=precopy)
    assert all(device.note.startswith(REACHED) for device in sent.devices)
    assert all(device.bytes >= STATE_SIZE for device in sent.devices)
    assert states(hosts.there) == before

    fill(hosts.here, [(b"what stayed behind", b"is another thing")] * 2)
    assert states(hosts.here) != before
    move(hosts.there, hosts.here, model, tmp_path, precopy=precopy)
    assert states(hosts.here) == before
    with Uart(hosts.here[0]) as uart:
        assert (uart.take(15), uart.take(11, port=1)) == TEXTS[0]


@pytest.mark.parametrize("precopy", [True, False], ids=["pre-copy", "stop-copy"])
def test_a_device_of_another_type_is_refused_and_the_source_keeps_its_own(
    hosts: Hosts, tmp_path: Path, precopy: bool
) -> None:
    fill(hosts.here, TEXTS)
    before = states(hosts.here)
    with make_devices(1, "mtty-1") as small:
        untouched = states(small)
        sent, received = run(hosts.here[:1], small, "per-device", tmp_path, precopy=precopy)
        assert State.COMPLETED not in (sent.outcome, received.outcome)
        assert f"{small[0]} refused a write of its state with E" in received.error
        assert "give both sides" in received.error
        assert "\n" not in sent.error + received.error
        assert states(small) == untouched
    assert states(hosts.here) == before


def test_every_installed_model_is_among_them() -> None:
    assert {"inline", "per-device", "pool", "elastic", "per-device+receiver"} <= set(all_models())


def test_with_processes_of_their_own(hosts: Hosts, tmp_path: Path) -> None:
    fill(hosts.here, TEXTS)
    before = states(hosts.here)
    scenario = tmp_path / "kernel.toml"
    ends = f"{{source = {json.dumps(hosts.here)}, destination = {json.dumps(hosts.there)}}}"
    scenario.write_text(
        f'name = "kernel"\n[[devices]]\nplugin = "vfio"\ncount = 2\noptions = {{backend = "kernel", device = {ends}}}\n'
        # An emulated machine on a busy one is slow to start a process.
        "[limits]\npeer = 150\nconnect = 30\n"
    )
    arguments = ["run", str(scenario), "--model", "pool+receiver", "--json", str(tmp_path / "result.json")]
    ended = migpool(*arguments)
    # What state a driver's device has, only the driver knows: compared is here, by the UARTs' registers.
    assert (ended.returncode, "completed, not compared" in ended.stderr) == (0, True), ended
    assert states(hosts.there) == before


def test_the_host_is_probed(hosts: Hosts) -> None:
    with Uart(hosts.here[0]):
        ended = migpool("vfio", "probe", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = {device["name"]: device for device in json.loads(ended.stdout)["devices"]}
    assert set(found) == {*hosts.here, *hosts.there}
    busy = found[hosts.here[0]]
    assert not busy["migrates"]
    assert "another program has it" in busy["reason"]
    free = found[hosts.here[1]]
    assert free["migrates"]
    assert free["flags"] == ["STOP_COPY", "P2P", "PRE_COPY"]
    assert (free["state"], free["driver"], free["reason"]) == ("RUNNING", "mtty", "")


def migpool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "migpool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
