"""``migpool vmsd diff --qemu``: programs that are run for what they know of device state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migpool.errors import UsageError
from migpool.streams.compare.dumping import dumped_side
from tests.support.commandline import here

MACHINE = ("--machine", "pc-q35-9.2")
WRITES = """\
while [ "$1" != -dump-vmstate ]; do [ "$1" != -M ] || machine=$2; shift; done
[ "$machine" = pc-q35-9.2 ] || { echo "qemu: unsupported machine type: '$machine'" >&2; exit 1; }
printf '%%s' '%s' >"$2"
"""


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return str(path)


def dumping(folder: Path, name: str, version: int) -> str:
    device = {"Name": "dev", "version_id": version, "minimum_version_id": 1, "Fields": []}
    return program(folder, name, WRITES % json.dumps({"vmschkmachine": {"Name": "pc-q35-9.2"}, "dev": device}))


def test_two_programs_are_compared(tmp_path: Path) -> None:
    old, new = dumping(tmp_path, "old", 1), dumping(tmp_path, "new", 2)
    ended = here("vmsd", "diff", "--qemu", old, "--qemu", new, *MACHINE, "--direction", "both")
    assert ended.code == 1
    assert "\nbreaks backward: dev: the source writes version 2, the destination reads up to 1\n" in ended.out
    assert here("vmsd", "diff", "--qemu", old, "--qemu", new, *MACHINE).code == 0
    document = json.loads(here("vmsd", "diff", "--qemu", old, "--qemu", old, *MACHINE, "--json").out)
    assert (document["a"], document["changes"]) == (f"{old} -M pc-q35-9.2", [])


def test_a_machine_type_that_a_program_lacks_is_told_in_its_words(tmp_path: Path) -> None:
    old = dumping(tmp_path, "old", 1)
    ended = here("vmsd", "diff", "--qemu", old, "--qemu", old, "--machine", "pc-q35-99.0")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "pc-q35-99.0" in ended.err
    assert "it said: qemu: unsupported machine type" in ended.err


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exec sleep 60", "did not end within 0.2 s of -dump-vmstate"),
        ("exit 3", "wrote no description .*: exit code 3"),
        ("exit 0", "wrote no description .*: exit code 0"),
        (
            'while [ "$1" != -dump-vmstate ]; do shift; done; echo no >"$2"',
            "what it wrote with -dump-vmstate is no JSON",
        ),
        (None, "cannot be run: No such file or directory"),
    ],
)
def test_a_program_that_dumps_nothing_is_told_in_one_line(tmp_path: Path, script: str | None, message: str) -> None:
    path = program(tmp_path, "qemu", script) if script is not None else str(tmp_path / "none")
    with pytest.raises(UsageError, match=message) as caught:
        dumped_side(path, "q35", limit=0.2 if script == "exec sleep 60" else 60.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--qemu", "x", *MACHINE),
        ("--qemu", "x", "--qemu", "x"),
        ("--qemu", "x", "--qemu", "x", "a.mig", *MACHINE),
        ("--qemu", "x", "--qemu", "x", "--qemu", "x", *MACHINE),
    ],
)
def test_half_of_what_is_needed_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    ended = here("vmsd", "diff", *arguments)
    assert ended.code == 2
    assert "--qemu is given twice" in ended.err
