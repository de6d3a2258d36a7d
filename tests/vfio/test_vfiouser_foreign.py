"""Servers of other people: whatever a reset comes to, a device is usable afterwards, or refused with the remedy; and
nothing of an interrupted load is ever part of what comes later."""

from __future__ import annotations

import itertools
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migpool.conformance.check import Outcome, run_check
from migpool.conformance.devices import Subject, checks
from migpool.device import Device, DeviceContext, DeviceError, OptionValue, Side
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.migration import MigrationState
from tests.support import LONG
from tests.support.amounts import less_of_the_same
from tests.support.rig import KIB, MODELS, Models, Pair, contents
from tests.support.thinned import every_value
from tests.support.vfio.foreign_server import RESETS, ForeignDevice, ForeignServer, Reset, foreign_server
from tests.support.vfio.vfiouser_rig import WRITE

M = MigrationState
SIZE = 40 * KIB
CHUNK = 4 * KIB
STATES = st.sampled_from([M.RUNNING, M.STOP, M.STOP_COPY, M.RESUMING, M.ERROR])


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def opened(side: Side, sockets: Sequence[Path], **more: OptionValue) -> list[Device]:
    options: dict[str, OptionValue] = {
        "backend": "vfio-user",
        "socket": [str(path) for path in sockets],
        "time_limit": 1.0,
        "peer_to_peer": False,
        **more,
    }
    return list(devices(DeviceContext(side, options, len(sockets))))


def run(
    directory: Path,
    source: Sequence[Path],
    destination: Sequence[Path],
    models: Models = (PerDeviceScheduler, PerDeviceScheduler),
) -> tuple[SideReport, SideReport]:
    saved, loaded = opened("source", source), opened("destination", destination)
    try:
        limits = Settings(channels=2, chunk=CHUNK, budget=1024 * KIB, peer_limit=20)
        return Pair(saved, loaded, settings=limits, models=models).run(directory)
    finally:
        for device in (*saved, *loaded):
            device.close()


@pytest.mark.parametrize("models", MODELS)
def test_several_foreign_devices_in_one_machine(models: Models, directory: Path) -> None:
    there = [ForeignDevice() for _ in range(3)]
    with ExitStack() as stack:
        for number, device in enumerate(there):
            stack.enter_context(foreign_server(directory / f"a{number}", ForeignDevice(contents(SIZE, number))))
            stack.enter_context(foreign_server(directory / f"b{number}", device))
        sent, got = run(
            directory, [directory / f"a{at}" for at in range(3)], [directory / f"b{at}" for at in range(3)], models
        )
    assert (sent.error, got.error) == ("", "")
    assert [device.content for device in there] == [contents(SIZE, number) for number in range(3)]


def test_a_version_without_capabilities_will_do(directory: Path) -> None:
    there = ForeignDevice()
    with foreign_server(directory / "a", ForeignDevice(b"state")) as a, foreign_server(directory / "b", there) as b:
        a.text, b.text = "", "{}"
        sent, got = run(directory, [directory / "a"], [directory / "b"])
    assert (sent.error, got.error, there.content) == ("", "", b"state")


# ---------------------------------------------------------------------- what a reset comes to


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("found", [M.STOP, M.STOP_COPY, M.RESUMING, M.ERROR])
@pytest.mark.parametrize("reset", RESETS)
def test_a_device_that_is_found_elsewhere_is_usable_or_refused_with_the_remedy(
    reset: Reset, found: MigrationState, side: Side, directory: Path
) -> None:
    device = ForeignDevice(b"old", reset=reset, state=found, came=b"half")
    with foreign_server(directory / "s", device) as server:
        (made,) = opened(side, [directory / "s"])
        try:
            made.save_setup() if side == "source" else made.load_setup(b"")
        except DeviceError as error:
            refused = str(error)
            assert f"found in {found.name}: " in refused
            assert refused.endswith("restart its server")
        else:
            refused = ""
            assert device.state is (M.RUNNING if side == "source" else M.RESUMING)
            if side == "destination":
                assert device.came == b""
                made.load_state(memoryview(b"new"))
                assert device.came == b"new"
            else:
                # What may be half of somebody else's state is not given away as this device's.
                assert device.content in (b"", b"old")
        made.close()
        assert refused == "" or WRITE not in server.seen
    can_be_left = found is not M.ERROR or reset in ("empties", "late")
    half = found is M.RESUMING and reset == "refused" and side == "source"
    assert (refused == "") is (can_be_left and not half)


@pytest.mark.parametrize("reset", RESETS)
def test_a_device_that_does_not_leave_resuming_takes_nothing_more(reset: Reset, directory: Path) -> None:
    device = ForeignDevice(reset=reset, held=M.RESUMING, state=M.RESUMING, came=b"half")
    with foreign_server(directory / "s", device) as server:
        (made,) = opened("destination", [directory / "s"])
        if reset in ("empties", "late"):
            made.load_setup(b"")
            assert device.came == b""
        else:
            with pytest.raises(
                DeviceError, match="it stays in RESUMING and cannot be used, rebind its driver or restart its server"
            ):
                made.load_setup(b"")
        made.close()
        assert WRITE not in server.seen


@pytest.mark.parametrize("to", [M.RESUMING, M.STOP_COPY, M.STOP, M.RUNNING])
def test_a_server_that_says_yes_to_a_state_and_stays_where_it_is_is_found_out(
    to: MigrationState, directory: Path
) -> None:
    source, destination = ForeignDevice(b"state"), ForeignDevice()
    (source if to is M.STOP_COPY else destination).deaf_to = to
    with foreign_server(directory / "a", source), foreign_server(directory / "b", destination):
        sent, got = run(directory, [directory / "a"], [directory / "b"])
    assert sent.outcome is State.FAILED
    assert f"took {to.name}, but its device is in " in sent.error
    assert got.outcome is State.FAILED
    assert (source.state, source.content) == (M.RUNNING, b"state")


def test_a_device_that_cannot_be_left_in_order_is_warned_of(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = ForeignDevice(reset="refused", held=M.STOP_COPY, state=M.STOP_COPY)
    with foreign_server(directory / "s", device):
        (made,) = opened("source", [directory / "s"])
        made.close()
    assert "restart its server" in caplog.text


# ---------------------------------------------------------------------- interrupted loads

Turn = tuple[Literal["whole", "cut", "lost", "abort", "next client"], int]
TURNS = st.lists(
    st.tuples(st.sampled_from(["whole", "cut", "lost", "abort", "next client"]), st.integers(0, 4)), max_size=6
)


@settings(max_examples=100 if LONG else 15, deadline=None)
@given(st.sampled_from([one for one in RESETS if one != "late"]), STATES, TURNS)
def test_nothing_of_an_interrupted_load_is_part_of_a_later_state(
    reset: Reset, begun: MigrationState, turns: list[Turn]
) -> None:
    """Loads that end in any way, one after the other: the device consists of the last whole one, or none was taken."""
    with tempfile.TemporaryDirectory() as made:
        where = Path(made) / "s"
        device = ForeignDevice(b"", reset=reset, state=begun, came=b"old")
        with foreign_server(where, device) as server:
            for number, turn in enumerate([*turns, ("whole", 3)]):
                _load(server, where, turn, bytes([number]) * 10)


def _load(server: ForeignServer, where: Path, turn: Turn, data: bytes) -> None:
    how, parts = turn
    (loading,) = opened("destination", [where])
    try:
        loading.load_setup(b"")
        for _ in range(parts):
            loading.load_state(memoryview(data))
        if how == "whole":
            loading.load_config(config(len(data) * parts))
            loading.start()
            loading.verify()
            assert server.foreign.content == data * parts
        elif how == "abort":
            loading.abort()
        elif how == "lost" and (connection := server.current) is not None:
            connection.shutdown(socket.SHUT_RDWR)
        elif how == "next client":
            return
    except DeviceError as error:
        # Only a device in ERROR has no way out but the reset that it refuses.
        refused = (str(error).endswith("restart its server"), server.foreign.state)
    else:
        refused = (True, M.ERROR)
    finally:
        loading.close()
    assert refused == (True, M.ERROR)
    assert server.foreign.state in (M.RUNNING, M.ERROR)


def config(saved: int) -> bytes:
    return b"vfiodone" + saved.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("name", "reset"),
    every_value(
        ["round-trip", "out-of-order", "missing-state", "fingerprints", "aborts", "cancels", "errors"],
        ["refused in STOP", "refused"],
    ),
)
def test_the_kit_for_authors_passes_on_foreign_servers(
    name: str, reset: Reset, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever one of its migrations leaves behind, the next finds the same two servers."""
    less_of_the_same(monkeypatch)
    ends = {end: str(directory / end) for end in ("source", "destination")}
    given: dict[str, OptionValue] = {"backend": "vfio-user", "socket": ends, "time_limit": 2.0}
    check = next(one for one in checks("pool") if one.name == name)
    with (
        foreign_server(directory / "source", ForeignDevice(contents(SIZE), reset=reset)),
        foreign_server(directory / "destination", ForeignDevice(reset=reset)),
    ):
        finding = run_check(Subject("vfio", devices, given), check, 60.0)
        assert finding.outcome is not Outcome.FAILED, finding.text


# ---------------------------------------------------------------------- a server that goes away


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("dead", range(3))
def test_a_server_that_goes_away_is_named_at_both_ends_and_the_others_run_on(
    dead: int, side: Side, models: Models, directory: Path
) -> None:
    """It is looked for once more, and the healthy ones run although it stands before them."""
    seen = itertools.count()

    def die(server: ForeignServer, connection: socket.socket, _n: int, command: int, _f: int, _p: bytes) -> bool:
        if command in (17, 18) and next(seen) == 3:
            server.die(connection)
            return True
        return False

    with ExitStack() as stack:
        servers: dict[tuple[str, int], ForeignServer] = {}
        for end, at in itertools.product(("source", "destination"), range(3)):
            device = ForeignDevice(contents(SIZE, at) if end == "source" else b"")
            dies = die if (end, at) == (side, dead) else None
            where = directory / f"{end}{at}"
            servers[end, at] = stack.enter_context(foreign_server(where, device, dies))  # type: ignore[arg-type]
        sent, got = run(
            directory,
            [directory / f"source{at}" for at in range(3)],
            [directory / f"destination{at}" for at in range(3)],
            models,
        )
        for (end, at), server in servers.items():
            if (end, at) != (side, dead):
                # There are servers that reset a device whose client goes away: theirs has not.
                assert server.clients == 1
                assert server.foreign.state is M.RUNNING
                if end == "source":
                    assert server.foreign.content == contents(SIZE, at)
    assert sent.outcome is got.outcome is State.FAILED
    gone = f"the vfio-user server {directory}/{side}{dead} went away before it had answered a"
    assert gone in sent.error
    assert gone in got.error
    if side == "source":
        assert f"the vfio-user server {directory}/source{dead} is gone, start it again" in sent.error
        assert got.error.startswith("the source gave up: ")
