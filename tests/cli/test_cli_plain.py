"""A call that is told without the parser means what the parser makes of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from migpool.cli.app import app
from migpool.cli.commands import inspect as command
from migpool.cli.invocation import Invocation
from migpool.cli.plain import COMPLETING, plain_call
from tests.support import DATA
from tests.support.commandline import here

WORDS = ("vm.mig", "-", "timer", "--json", "--device", "--device=timer", "--debug", "--xml", "-h", "--", "", "-x")
STREAM = DATA / "qemu-streams" / "q35-min.mig"


def plain(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ``inspect`` is asked for, by whichever way."""
    asked: list[Any] = []

    def inspected(source: str, device: Any = (), **options: Any) -> int:
        asked.append((source, list(device), {name: value for name, value in options.items() if value}))
        return 0

    monkeypatch.setattr("migpool.cli.inspection.inspected", inspected)
    monkeypatch.setattr(command, "inspected", inspected)
    return asked


def test_it_is_asked_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = plain(monkeypatch)
    short = [words for length in range(3) for words in product(WORDS, repeat=length)]
    draw = Random(1)
    long = [tuple(draw.choices(WORDS[:5], k=draw.randint(3, 7))) for _ in range(400)]
    told = 0
    for words in (*short, *long):
        call = plain_call(["inspect", *words])
        if call is None:
            continue
        told += 1
        assert call() == 0
        app(["inspect", *words], standalone_mode=False, prog_name="migpool", obj=Invocation())
        by_the_parser = asked.pop()
        assert asked.pop() == by_the_parser, words
    assert told > 30


@pytest.mark.parametrize("words", [[], ["run"], ["inspect"], ["inspect", "a", "b"], ["-v", "inspect", "a"]])
def test_what_is_not_plain_is_the_parsers(words: list[str]) -> None:
    assert plain_call(words) is None


def test_a_shell_that_asks_for_completions_is_answered_by_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain_call(["inspect", "a"]) is not None
    monkeypatch.setenv(COMPLETING, "complete_bash")
    assert plain_call(["inspect", "a"]) is None


@pytest.mark.parametrize(
    "words",
    [
        [str(STREAM)],
        [str(STREAM), "--json", "--device", "timer"],
        [str(STREAM), "--device", "nothing"],
        ["cut"],
        ["nothing"],
        ["empty"],
        ["."],
    ],
    ids=" ".join,
)
def test_it_ends_in_the_same_way(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cut").write_bytes(STREAM.read_bytes()[:70_000])
    Path("empty").touch()
    plainly = here("inspect", *words)
    monkeypatch.setattr("migpool.cli.plain.plain_call", lambda _: None)
    assert here("inspect", *words) == plainly
