"""Each method of a device with each kind of mistake: the kit says which, in a line of its own, and comes to its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import LONG, mistaken
from tests.support.commandline import Ended, here
from tests.support.mistaken import ANNOUNCED, ENDS, HANGS, LEAKS, RAISED, RETURNED
from tests.support.new_package import installed

LIMIT, SPINS = "4", "1.5"
"""Seconds for a check that hangs, far more than those before it take; and for one that computes meanwhile."""
LENGTHS = ("iterate", "save_state")
BYTES = ("save_setup", "save_config")
OTHERS = ("pending", "fingerprint", "exact_config", "describe_config", "costs", "needed")
SILENT = ("quiesce", "stop", "wake", "resume", "load_setup", "load_state", "load_config", "start", "verify", "abort")
METHODS = (*LENGTHS, *BYTES, *OTHERS, *SILENT, "check_version", "close", "function")
"""All that migpool calls, whatever the threading model is; ``function`` is the plug-in itself."""


def is_wrong(method: str, mistake: str) -> bool:
    """Whether that is a mistake at all."""
    if mistake in RETURNED and (method in SILENT or method in ("check_version", "close", "function")):
        return False
    if mistake == "none" and method in ("fingerprint", "describe_config", "costs"):
        return method == "fingerprint"
    if mistake == "keeps":
        return method in ("save_state", "load_state")
    return True


MISTAKES = (*RETURNED, *RAISED, *ENDS, *HANGS, *LEAKS, "keeps")
ALL = [(method, mistake) for method in METHODS for mistake in MISTAKES if is_wrong(method, mistake)]


def sampled() -> list[tuple[str, str]]:
    """Every method and every mistake, in as few pairs as that takes."""
    found: list[tuple[str, str]] = []
    methods, mistakes = dict.fromkeys(METHODS), dict.fromkeys(MISTAKES)
    while methods or mistakes:
        best = max(ALL, key=lambda pair: (pair[0] in methods) + (pair[1] in mistakes))
        found.append(best)
        methods.pop(best[0], None)
        mistakes.pop(best[1], None)
    return found


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The plug-in, in this module."""
    with installed(mistaken, "mistaken-plugin", tmp_path_factory.mktemp("mistaken"), ANNOUNCED):
        yield


def conformance(tmp_path: Path, limit: str = LIMIT, **options: object) -> tuple[Ended, list[dict[str, str]]]:
    """What the kit prints, and the checks that failed."""
    given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    report = tmp_path / "report.json"
    ended = here("conformance", "mistaken", *given, "--models", "inline", "--limit", limit, "--json", str(report))
    checks = json.loads(report.read_text())["checks"] if report.exists() else []
    return ended, [one for one in checks if one["outcome"] == "failed"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("method", "mistake"), ALL if LONG else sampled())
def test_each_mistake_is_named(tmp_path: Path, method: str, mistake: str) -> None:
    limit = SPINS if mistake == "spins" and not LONG else LIMIT
    ended, failed = conformance(tmp_path, limit, method=method, mistake=mistake)
    assert ended.code == 1, ended.out + ended.err
    assert len(failed) == 1, failed
    said = failed[0]["text"]
    assert "Traceback" not in ended.out + ended.err
    assert "should not have happened" not in ended.out + ended.err
    if mistake in ("aborts", "kills"):
        assert f"ended the process, by {'SIGABRT' if mistake == 'aborts' else 'SIGKILL'}" in said
        return
    assert "mistaken_plugin.py:" in said
    if mistake in LEAKS:
        assert failed[0]["check"] == "gives-back"
        assert f"more {mistake}" in said
    elif mistake == "keeps":
        assert failed[0]["check"] == "keeps-no-buffer"
    else:
        assert f"{method} " in said.replace(":", " ")
    if mistake in HANGS:
        assert "did not end within" in said or "after abort()" in said
        assert any(line.strip().startswith("at mistaken_plugin.py") for line in ended.out.splitlines())
    if mistake in RETURNED and (method, mistake) != ("fingerprint", "none"):
        assert "it must return" in said
    if mistake in RAISED:
        assert "only a DeviceError may come out of it" in said


ATTRIBUTES = {
    "idstr": ("", "5", '"é"'),
    "instance_id": ("-1", '"x"', "4294967296"),
    "version": ("-1", '"x"', "8589934592", "1.5"),
    "iterable": ("1", '"yes"'),
    "in_flight": ("0", "-1", '"x"'),
    "config_channel": ('"x"', "1"),
    "save_lock": ('"x"', "[1]"),
    "load_lock": ("true",),
    "after": ('"ram"', "[1]"),
    "early": ("1",),
    "optional": ('"yes"',),
    "priority": ('"high"',),
    "note": ("1",),
    "remark": ("[1]",),
    "peer_to_peer": ("1",),
}


@pytest.mark.parametrize(
    ("attribute", "value"),
    [(name, value) for name, values in ATTRIBUTES.items() for value in (values if LONG else values[-1:])],
)
def test_each_attribute_that_cannot_be_is_named(tmp_path: Path, attribute: str, value: str) -> None:
    ended, failed = conformance(tmp_path, attribute=attribute, value=value)
    assert ended.code == 1, ended.out + ended.err
    assert [one["check"] for one in failed] == ["identity"]
    assert f"has the {attribute.replace('_id', ' id')} " in failed[0]["text"]
    assert "mistaken_plugin.py:" in failed[0]["text"]


def test_an_honest_device_makes_no_finding(tmp_path: Path) -> None:
    ended, failed = conformance(tmp_path, "60")
    assert ended.code == 0, ended.out + ended.err
    assert not failed
