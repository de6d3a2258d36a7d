"""``migpool tour``: every step is a command that exists, what cannot be made here is left out, and the rest is run."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_group

from migpool.cli.app import app
from migpool.cli.commands import tour
from tests.support import LONG
from tests.support.commandline import here

RUN, *_, LAST = tour.STEPS
IMPOSSIBLE = replace(RUN, title="Not here", words=("run", "nowhere"))


@pytest.mark.parametrize("step", tour.STEPS, ids=lambda step: step.words[0])
def test_a_step_is_a_command_that_can_be_typed(step: tour.Step) -> None:
    words = [word.format(**dict.fromkeys([*tour.PLACES, "out"], "x")) for word in step.words]
    context = get_group(app).make_context("migpool", words)
    name, command, rest = get_group(app).resolve_command(context, words)
    assert command is not None
    command.make_context(name, rest, parent=context)


def test_steps_are_told_and_made_and_one_that_cannot_be_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour, "STEPS", (RUN, IMPOSSIBLE, LAST))
    ended = here("tour")
    assert ended.code == 0
    assert "== 2 of 3: Not here" in ended.out
    assert "$ migpool run small --model inline\n" in ended.out
    assert "[1/1] inline, run 1: completed" in ended.err
    assert "migpool: this step is left out: " in ended.err
    assert "1 of 3 steps could not be made; each says why" in ended.out
    assert "tour-device: pip install" in ended.out
    assert "\\x0a" not in ended.out


@pytest.mark.skipif(not LONG, reason="a minute of real runs; the long profile makes them")
def test_all_of_it_is_made(tmp_path: Path) -> None:
    ended = here("tour", "--no-wait", extra={"TMPDIR": str(tmp_path)})
    assert ended.code == 0, ended.err
    assert ended.out.count("\n$ migpool ") == len(tour.STEPS)
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert "left out" not in ended.err


def test_ctrl_c_while_it_waits_ends_it_in_order() -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "migpool", "tour"],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "100"},
    ) as process:
        try:
            os.close(terminal)
            seen = b""
            while b"Enter goes on" not in seen:
                seen += os.read(controller, 1 << 16)
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr is not None
            said = process.stderr.read().decode()
            assert process.wait(30) == 130
        finally:
            process.kill()  # or leaving the context waits for ever
    os.close(controller)
    assert "Traceback" not in said
