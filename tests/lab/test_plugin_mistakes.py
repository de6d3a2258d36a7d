"""What a device does wrong in a run is told with its method and the plug-in's line; a call that hangs, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.core.device_calls import of, under_way
from migpool.core.machine import Slot
from migpool.lab.run.long_calls import LongCall, Told
from tests.support import LONG, mistaken
from tests.support.commandline import Ended, here
from tests.support.mistaken import ANNOUNCED, RAISED, RETURNED, Honest
from tests.support.new_package import installed


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(mistaken, "mistaken-plugin", tmp_path_factory.mktemp("mistaken"), ANNOUNCED):
        yield


def run(folder: Path, method: str, mistake: str, *more: str) -> Ended:
    """What ``migpool run`` says of it."""
    scenario = folder / "made.toml"
    options = f'options = {{method = "{method}", mistake = "{mistake}"}}'
    limits = "[limits]\npeer = 8\nconnect = 5\n"
    scenario.write_text(f'name = "made"\n[[devices]]\nplugin = "mistaken"\n{options}\n{limits}')
    return here("run", str(scenario), "--model", "pool", *more)


SOURCE = ("save_setup", "pending", "iterate", "quiesce", "stop", "save_state", "save_config", "fingerprint", "costs")
DESTINATION = ("load_setup", "load_state", "load_config", "start", "verify", "check_version", "close", "function")
ALL = [
    *((method, mistake) for method in (*SOURCE, *DESTINATION) for mistake in (*RAISED, "os._exit")),
    *((method, mistake) for method in SOURCE if method not in ("quiesce", "stop") for mistake in RETURNED),
]
HARMLESS = {("costs", "none"), ("fingerprint", "none")}
SOME = [
    ("pending", "float"),
    ("costs", "text"),
    ("verify", "KeyboardInterrupt"),
    ("close", "OfItsOwn"),
    ("function", "sys.exit"),
    ("load_state", "os._exit"),
]


@pytest.mark.parametrize(("method", "mistake"), [pair for pair in ALL if pair not in HARMLESS] if LONG else SOME)
def test_what_a_plugin_does_wrong_is_told_with_its_line(tmp_path: Path, method: str, mistake: str) -> None:
    ended = run(tmp_path, method, mistake)
    assert ended.code == 1, ended.out + ended.err
    said = ended.err.splitlines()[-1]
    assert f"{method} " in said.replace(":", " ")
    assert "mistaken_plugin.py:" in said
    assert "Traceback" not in ended.out + ended.err
    assert "should not have happened" not in ended.err


def test_debug_shows_the_plugins_traceback(tmp_path: Path) -> None:
    ended = run(tmp_path, "load_config", "ValueError", "--debug")
    assert ended.code == 1
    assert "ValueError: boom" in ended.err.splitlines()
    assert any('mistaken_plugin.py", line' in line for line in ended.err.splitlines())


def test_a_call_that_hangs_is_told_of_while_it_does_and_in_the_error(tmp_path: Path) -> None:
    ended = run(tmp_path, "save_state", "blocks")
    assert ended.code == 1
    hangs = "mistaken has been in save_state for "
    told = [line for line in ended.err.splitlines() if line.startswith(f"pool, run 1: at the source {hangs}")]
    assert told
    assert "(plug-in mistaken, mistaken_plugin.py:" in told[0]
    assert hangs in ended.err.splitlines()[-1]


def test_a_call_is_told_of_when_it_is_long_and_again_when_that_has_doubled() -> None:
    told = Told()
    seen = [
        [call.seconds for call in told.due([LongCall("source", "it has been in stop", seconds, "")])]
        for seconds in (2.0, 3.0, 4.0, 6.0, 7.0, 12.5)
    ]
    assert seen == [[], [3.0], [], [6.0], [], [12.5]]
    assert told.due([]) == []
    assert told.due([LongCall("source", "it has been in stop", 3.0, "")]) != []


def test_who_is_in_a_call_is_known_while_it_lasts() -> None:
    begun, leave = threading.Event(), threading.Event()

    class Waits(Honest):
        def stop(self) -> None:
            begun.set()
            leave.wait()

    slot = Slot(0, Waits(0, bytearray()), "waiting")
    thread = threading.Thread(target=of, args=(slot, "stop", slot.device.stop))
    thread.start()
    begun.wait()
    try:
        (seen,) = [one for one in under_way(0) if one.call.owner is slot]
        assert str(seen).startswith("mistaken has been in stop for 0 s (plug-in waiting, ")
        assert seen.stack[0].endswith(" stop")
    finally:
        leave.set()
        thread.join()
    assert not [one for one in under_way(0) if one.call.owner is slot]
