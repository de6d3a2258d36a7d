"""``migpool observe`` with monitors of our own: what it says, what it leaves behind, and what can be wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migpool.lab.qemu import monitor, tracing
from migpool.lab.qemu.observe import EVERY
from tests.support.commandline import Ended, here
from tests.support.monitors import FakeQemu, fake_pair, observing


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[FakeQemu, FakeQemu]]:
    with fake_pair(tmp_path / "s", tmp_path / "d") as both:
        yield both


def observed(pair: tuple[FakeQemu, FakeQemu], *more: str) -> Ended:
    source, destination = pair
    return here("observe", "--source", str(source.path), "--destination", str(destination.path), *more)


def test_it_says_what_explain_says_and_leaves_all_as_it_was(pair: tuple[FakeQemu, FakeQemu], tmp_path: Path) -> None:
    source, destination = pair
    source.on = {"migration_bitmap_sync_end"}
    kept, result = tmp_path / "kept", tmp_path / "result.json"
    settings = ("unix:x", "multifd=on", "downtime_limit=100")
    ended = observed(pair, "--keep", str(kept), "--json", str(result), "--", *settings)
    assert ended.code == 0, ended.err
    explained = here("explain", str(kept / "source.log"), str(kept / "destination.log"))
    assert explained.out.splitlines()[0] in ended.out
    assert "whose own downtime is 41 ms" in ended.out
    assert "Traceback" not in ended.err
    assert (source.on, destination.on) == ({"migration_bitmap_sync_end"}, set())
    for side in pair:
        assert side.capabilities == {"events": False, "multifd": True}
        assert ("migrate-set-parameters", {"downtime-limit": 100}) in side.asked
    assert ("migrate-incoming", {"uri": "unix:x"}) in destination.asked
    told = json.loads(result.read_text())["settings"]["monitors"]
    assert told["destination"]["version"] == "10.0.2"
    assert told["source"]["capabilities"]["multifd"] is True
    assert told["source"]["query-migrate"]["downtime"] == 41


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has this policy")
def test_it_gives_way_while_it_observes(pair: tuple[FakeQemu, FakeQemu], monkeypatch: pytest.MonkeyPatch) -> None:
    thread, before, found = threading.get_native_id(), os.sched_getscheduler(0), []
    migrate = pair[0].migrate

    def looking() -> None:
        found.append(os.sched_getscheduler(thread))
        migrate()

    monkeypatch.setattr(pair[0], "migrate", looking)
    assert observed(pair, "--", "unix:x").code == 0
    assert (found, os.sched_getscheduler(0)) == ([os.SCHED_BATCH], before)


def test_a_log_that_exists_is_read_from_where_it_was(pair: tuple[FakeQemu, FakeQemu], tmp_path: Path) -> None:
    """An earlier migration in it is another one."""
    options = []
    for qemu in pair:
        qemu.log = tmp_path / f"{qemu.path.name}.log"
        qemu.log.write_text("1@1600000000.000000:vmstate_downtime_checkpoint src-downtime-start\nnoise\n")
        options += [f"--{'source' if qemu is pair[0] else 'destination'}-log", str(qemu.log)]
    kept = tmp_path / "kept"
    ended = observed(pair, *options, "--keep", str(kept), "--", "unix:x")
    assert ended.code == 0, ended.err
    assert not any(command == "human-monitor-command" for qemu in pair for command, _ in qemu.asked)
    assert "1600000000" not in (kept / "source.log").read_text()


def test_a_migration_that_leaves_the_numbers_of_the_one_before_has_been(pair: tuple[FakeQemu, FakeQemu]) -> None:
    for qemu in pair:
        qemu.migrate()
    ended = observed(pair, "--limit", "10", "--", "unix:x")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("which", "change", "arguments", "said"),
    [
        (0, {"version": (8, 1)}, (), "QEMU is 8.1.2: only 8.2 and later"),
        (0, {"timed": False}, (), "without times: start it with -msg timestamp=on"),
        (1, {"traces": False}, (), "does not come to"),
        (1, {"state": "running"}, (), "is running, and waits for no migration"),
        (0, {"state": "inmigrate"}, (), "waits for a migration: is it the other side"),
        (0, {"ends": "failed"}, ("--", "unix:x"), "the migration failed at the source: the link went away"),
        (0, {"ends": ""}, ("--limit", "1", "--", "unix:x"), "did not end within the 1 s of --limit"),
        (0, {"mute": True}, (), "says nothing for 1.5 s: a monitor serves one client at a time"),
        (0, {"dies_at": "migrate"}, ("--", "unix:x"), "the source's QEMU closed its monitor at migrate"),
        (0, {"dies_at": "qmp_capabilities"}, (), "speaks no QMP"),
        (0, {}, ("--", "unix:x", "nonsense=1"), "nonsense: the source's QEMU has no capability and no parameter"),
        (0, {}, ("--", "unix:x", "multifd=2"), "multifd=2: a capability is on or off"),
        (0, {}, ("--", "unix:x", "multifd"), "as NAME=VALUE"),
        (0, {}, ("--source-log", "nowhere.log"), "nowhere.log cannot be read"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_and_no_tracepoint_stays_on(
    pair: tuple[FakeQemu, FakeQemu],
    monkeypatch: pytest.MonkeyPatch,
    which: int,
    change: dict[str, Any],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr(monitor, "ANSWERS", 1.5)
    monkeypatch.setattr(tracing, "_COMES", 1.0)
    for name, value in change.items():
        setattr(pair[which], name, value)
    ended = observed(pair, *arguments)
    assert ended.code in (1, 2), ended
    assert ended.out == ""
    errors = [line for line in ended.err.splitlines() if line.startswith("migpool:")]
    assert len(errors) == 1, ended.err
    assert said in errors[0]
    for qemu in (one for one in pair if not one.dies_at):
        assert qemu.on == set()
        assert not qemu.capabilities["events"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a monitor"),
        (("--source", "nowhere"), "nowhere is not there: start the source's QEMU with -qmp unix:nowhere"),
        (("--source", __file__), "is no socket"),
        (("--source", "x", "--destination", "x"), "x is named twice"),
        (("--source", "tcp:nowhere"), "is no address of a monitor"),
        (("--source", "tcp:127.0.0.1:1"), "connection refused"),
        (("--source-log", "x", "--destination", "y"), "--source-log without --source"),
        (("--destination", "y", "--", "unix:x"), "only with --source can the migration be started"),
    ],
)
def test_an_address_that_is_none_is_told_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    ended = here("observe", *arguments)
    assert ended.code in (1, 2)
    assert said in ended.err.lower().replace("qemu", "QEMU") or said in ended.err
    assert len(ended.err.splitlines()) == 1


def test_nothing_is_asked_while_the_machine_stands_still(tmp_path: Path) -> None:
    """Whoever asks a QEMU then takes its big lock, or its main loop, from the migration."""
    with fake_pair(tmp_path / "s", tmp_path / "d") as (source, destination):
        with observing(source.path, destination.path) as command:
            source.migration = {"status": "active"}
            source.tell("MIGRATION", status="active")
            destination.tell("MIGRATION", status="active")
            command.complained_of("source: active")
            source.tell("STOP")
            looks = [len(source.asked)]
            while len(looks) < 2 or looks[-1] != looks[-2]:  # one look may have been under way
                assert len(looks) < 12, "it goes on asking"
                time.sleep(4 * EVERY)
                looks.append(len(source.asked))
            source.migrate()
            ended = command.wait()
        assert ended.code == 0, ended.err


@pytest.mark.parametrize("stops", [False, True], ids=["running", "standing still"])
def test_a_qemu_that_ends_meanwhile_is_told_at_once(tmp_path: Path, stops: bool) -> None:
    with fake_pair(tmp_path / "s", tmp_path / "d") as (source, destination):
        with observing(source.path, destination.path) as command:
            source.tell("MIGRATION", status="active")
            if stops:
                source.tell("STOP")
            source.hang_up()
            ended = command.wait()
        assert ended.code == 1
        assert "the source's QEMU closed its monitor" in ended.err
        assert "Traceback" not in ended.err
        assert destination.on == set()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_switches_off_what_it_switched_on(
    pair: tuple[FakeQemu, FakeQemu], number: signal.Signals, code: int
) -> None:
    source, destination = pair
    with observing(source.path, destination.path) as command:
        assert "vmstate_downtime_checkpoint" in source.on & destination.on
        command.interrupt(number)
        ended = command.wait()
    assert (ended.code, ended.out) == (code, "")
    assert "Traceback" not in ended.err
    assert (source.on, destination.on) == (set(), set())


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qemu.qmp", None)
    for name in ("monitor", "tracing", "observe"):
        monkeypatch.delitem(sys.modules, f"migpool.lab.qemu.{name}", raising=False)
    ended = here("observe", "--source", "a")
    assert (ended.code, ended.out) == (2, "")
    assert "pip install 'migpool[observe]'" in ended.err
    assert len(ended.err.splitlines()) == 1
