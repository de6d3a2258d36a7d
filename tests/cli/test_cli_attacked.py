"""Commands whose peer means harm: each ends in time, with one line that says what was wrong, and nothing has moved."""

from __future__ import annotations

import gc
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.lab.qemu import monitor, tracing
from tests.support import LONG
from tests.support.attacks import ATTACKS, Hostile, besieged, says
from tests.support.commandline import Ended, here, scenario_file, started
from tests.support.monitors import fake_pair
from tests.support.recording_rig import record_migration
from tests.support.vfio.vfiouser_rig import RawClient

SIZE = 256 << 10
SIDES = ("source", "destination")
SOME = (
    "silence",
    "a flood",
    "garbage",
    "slow bytes",
    "an early end",
    "an early start",
    "a long message",
    "TLS",
    "a reset",
)
"""In the short profile."""
ENDLESS = ("acknowledgements", "answers that nobody asked for", "grants that rise")
"""Each message is right, and no progress."""


def is_one_clear_line(ended: Ended) -> None:
    """The error of a command that failed."""
    assert ended.code == 1, ended
    lines = [line for line in ended.err.splitlines() if line.startswith("migpool:")]
    errors = [line for line in lines if " has been in " not in line]  # what a busy machine is told, is no error
    assert len(errors) == 1, ended.err
    assert errors[0].isprintable()
    assert len(errors[0]) < 700
    assert "Traceback" not in ended.err
    assert "should not have happened" not in ended.err


@pytest.mark.parametrize("attack", ATTACKS if LONG else SOME)
def test_a_source_moves_nothing_to_who_is_no_destination(tmp_path: Path, attack: str) -> None:
    scenario = scenario_file(
        tmp_path / "s.toml",
        ['plugin = "vfio"\noptions = {profile = "tiny"}'],
        "[limits]\npeer = 0.3\nconnect = 2.0\n[channels]\ncount = 2",
    )
    with Hostile(tmp_path / "d", ATTACKS[attack]):
        ended = here("send", scenario, "--to", f"unix:{tmp_path}/d", "--json", str(tmp_path / "result.json"))
    is_one_clear_line(ended)
    assert "state verified" not in ended.out
    (run,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert run["outcome"] != "completed"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    assert record_migration(folder)[0].complete
    return folder / "recording"


@pytest.mark.parametrize("attack", ATTACKS if LONG else (*SOME[::2], *ENDLESS))
def test_a_replay_into_who_is_no_destination_is_not_accepted(tmp_path: Path, recording: Path, attack: str) -> None:
    with Hostile(tmp_path / "d", ATTACKS[attack]):
        ended = here("replay", str(recording), "--to", f"unix:{tmp_path}/d", "--limit", "0.3", "--connect", "2")
    if attack == "an early end":  # a destination's last word: a replay has no machine that could run twice
        assert ended.code in (0, 1), ended
        assert "Traceback" not in ended.err
    else:
        is_one_clear_line(ended)


GREETING = b'{"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}, "capabilities": []}}\r\n'
MONITORS = {
    **{name: ATTACKS[name] for name in ("silence", "an end", "garbage", "a web server", "slow bytes", "a flood")},
    "a flood of zeros": ATTACKS["a flood of zeros"],
    "a greeting of nothing": says(b'{"QMP": {}}\r\n'),
    "a greeting that is no table": says(b'{"QMP": 5}\r\n'),
    "no version": says(b'{"QMP": {"version": {}, "capabilities": []}}\r\n'),
    "a version that is none": says(
        b'{"QMP": {"version": {"qemu": {"major": "x", "minor": [], "micro": 0}}, "capabilities": []}}\r\n'
    ),
    "a deep greeting": says(b'{"QMP": ' + b"[" * 50_000 + b"\r\n"),
    "a greeting and garbage": says(GREETING, b"\xff\xfe{]\r\n"),
    "a greeting and silence": says(GREETING),
    "answers that nobody asked for": says(GREETING, b'{"return": {}, "id": "7"}\r\n' * 50),
    "answers that are none": says(GREETING, b'{"return": 5}\r\n', b'{"error": 5}\r\n', b"[]\r\n"),
    "events without an end": says(GREETING, b'{"event": "STOP", "timestamp": {}}\r\n' * 20_000),
}


@pytest.mark.parametrize(
    ("attack", "side"),
    [(attack, side) for number, attack in enumerate(MONITORS) for side in (SIDES if LONG else SIDES[number % 2 :][:1])],
)
def test_a_monitor_that_is_none_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, attack: str, side: str
) -> None:
    monkeypatch.setattr(monitor, "ANSWERS", 1.0)
    monkeypatch.setattr(tracing, "_COMES", 1.0)
    with fake_pair(tmp_path / "source", tmp_path / "destination"), Hostile(tmp_path / "h", MONITORS[attack]):
        ended = here(
            "observe",
            *("--source", str(tmp_path / ("h" if side == "source" else "source"))),
            *("--destination", str(tmp_path / ("h" if side == "destination" else "destination"))),
            *("--limit", "2", "--", "unix:x"),
        )
        assert ended.code in (1, 2), ended
        errors = [line for line in ended.err.splitlines() if line.startswith("migpool:")]
        assert len(errors) == 1, ended.err
        assert errors[0].isprintable()
        assert "Traceback" not in ended.err
        gc.collect()  # asyncio tells then of errors that nobody has asked for
        assert [record for record in caplog.records if record.name == "asyncio"] == []


CLIENTS = {
    "a scan": b"",
    "garbage": bytes(range(256)) * 8,
    "a web client": b"GET / HTTP/1.1\r\n\r\n",
    "half a header": struct.pack("=HHI", 1, 1, 20),
    "a message without an end": struct.pack("=HHIII", 1, 1, 0xFFFFFFFF, 0, 0),
    "a reply": struct.pack("=HHIII", 1, 1, 16, 1, 0),
    "a reset before a version": struct.pack("=HHIII", 1, 13, 16, 0, 0),
    "data before a version": struct.pack("=HHIII", 1, 18, 16 + 8 + 4, 0, 0) + struct.pack("=II", 12, 4) + b"data",
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """The socket of a device, at which strangers have been before, and go on to come."""
    path = tmp_path / "s"
    with started("vfio", "serve", "tiny", "--socket", str(path)) as server:
        server.printed_of("listens at")
        with besieged(path, CLIENTS, each=1):
            yield path
        threads, descriptors = server.threads_and_descriptors()
        assert server.process.poll() is None
        assert threads < 50
        assert descriptors < 50
        assert "Traceback" not in server.complained()


def test_a_device_is_saved_and_loaded_beside_strangers(served: Path) -> None:
    for _ in range(3):
        state = b""
        client = RawClient(str(served))
        try:
            assert client.go("STOP_COPY") == 0
            state = client.read_all()
            assert len(state) == SIZE
            assert client.go("RESUMING") == 0
            for begin in range(0, SIZE, 4096):
                assert client.write(state[begin : begin + 4096]) == 0
            assert client.go("RUNNING") == 0
        finally:
            client.close()
