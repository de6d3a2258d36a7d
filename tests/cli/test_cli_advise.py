"""``migpool advise``: text, JSON, Markdown, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commandline import here
from tests.support.qemu_logs import real

LOGS = tuple(map(str, real("e1000e-16")))


def test_three_forms_say_the_same() -> None:
    text, as_json, markdown = (here("advise", *LOGS, *more) for more in ((), ("--json",), ("--markdown",)))
    assert [one.code for one in (text, as_json, markdown)] == [0, 0, 0]
    said = json.loads(as_json.out)
    assert said["schema"] == 1
    assert [one["about"] for one in said["advice"]][:1] == ["device"]
    for one in said["advice"]:
        assert one["do"] in text.out
        assert one["do"] in markdown.out
    assert markdown.out.startswith("**Downtime** 39.0 ms. What limits it: the 16 e1000e")
    assert "| load config | 36.6 ms |" in markdown.out


@pytest.mark.parametrize(("limit", "code"), [("40ms", 0), ("39ms", 1)])
def test_a_limit_decides_the_exit_code(limit: str, code: int) -> None:
    ended = here("advise", *LOGS, "--fail-above", limit)
    assert (ended.code, ended.err.count("of --fail-above")) == (code, code)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*LOGS, LOGS[0]), "3 logs are too many"),
        ((*LOGS, "--json", "--markdown"), "choose one"),
        (("nowhere.log",), "cannot be read"),
        ((".",), "is no recording"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ended = here("advise", *(str(tmp_path) if one == "." else one for one in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
