"""Every command in trouble: no stdout, no disk, no permission, a signal at any moment. No traceback, no harmed file.

``MIGPOOL_TROUBLES=500`` makes as many random tries; the profiles make a few of them, always the same.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from migpool.cli.exit_code import ExitCode
from tests.docs.reference import commands
from tests.support import LONG, ROOT
from tests.support.commandline import here
from tests.support.forking import as_a_user_does

TRIES: Final = int(os.environ.get("MIGPOOL_TROUBLES", "60"))
LIMIT: Final = 300.0
"""Seconds; a tour takes minutes on a machine that does other things as well."""
BEFORE: Final = "what was here before\n"
NO_WORDS: Final = ("Traceback", "should not have happened", "Exception ignored", "KeyboardInterrupt")
STREAM: Final = ROOT / "tests" / "data" / "qemu-streams" / "none.mig"
TRACES: Final = ROOT / "tests" / "data" / "qemu-traces" / "e1000e-16"

COMMANDS: Final[dict[str, str]] = {
    "tour": "",
    "run": "small -m inline --json {out}/r.json --trace {out}/t.json --picture {out}/p.svg --report {out}/r.html",
    "compare": "small --models inline,pool --json {out}/r.json --report {out}/r.html",
    "send": "small --to unix:{made}/nobody --json {out}/r.json",
    "receive": "--listen unix:{out}/listen --store {out}/stored --idle 1",
    "record": "{out}/recording --listen unix:{out}/listen --to unix:{made}/nobody --wait 1 --connect 1",
    "replay": "{made}/nothing --to unix:{made}/nobody --connect 1",
    "report": "{made}/result.json -o {out}/r.html",
    "explain": "{source} {destination} --json {out}/r.json --trace {out}/t.json --report {out}/r.html",
    "advise": "{source} {destination} --json",
    "simulate": "small --models pool,inline --json",
    "observe": "--source {made}/nobody --limit 1 --json {out}/r.json",
    "inspect": "{stream} --device *",
    "plugins": "vfio",
    "conformance": "ringnic --models inline --json {out}/r.json --markdown {out}/r.md",
    "new-device": "made-device --into {out}",
    "new-model": "made-model --into {out}",
    "scenario list": "",
    "scenario show": "default",
    "scenario from": "{source} {destination} -o {out}/r.toml",
    "scenario check": "small",
    "snapshot save": "{out}/s.mig --scenario small",
    "snapshot load": "{made}/snapshot --scenario small",
    "tls new": "{out}/pki",
    "vmsd diff": "{stream} {stream} --json",
    "lab sweep": "{sweep} --results {out}/sweep",
    "lab list": "--json",
    "lab show": "C1",
    "lab run": "C17 --quick --results {out}/lab",
    "lab compare": "{findings} {findings}",
    "vfio probe": "--json",
    "vfio serve": "tiny --socket {out}/serve",
}
"""Each with arguments that have it write what it can; ``{out}`` is where there is trouble."""
LONG_ONES: Final = ("tour", "conformance", "lab run")
WITHOUT_END: Final = ("receive", "lab run", "vfio serve")
"""They end by a signal, where nothing else ends them."""
KEPT: Final = ("r.json", "r.toml", "t.json", "p.svg", "r.html", "r.md")
"""Files that are there before, and must then be as they were or whole."""
NEW: Final = ("s.mig", "stored")
"""Files that are not replaced: they are there whole or not at all."""

TROUBLES: Final = ("no stdout", "full stdout", "no reader", "full disk", "read-only", "no permission", "signal")
NEED_ROOT: Final = {
    # As much of the filler as fits: the disk has some pages left, or none.
    "full disk": "mount -t tmpfs -o size=64k tmpfs {out}; cp {kept}/* {out}; "
    "head -c {taken} /dev/zero 2>/dev/null >{out}/filler || :",
    "read-only": "mount --bind {out} {out}; mount -o remount,bind,ro {out}",
    "no permission": "chmod -R a-w {out}",
}
"""What is done in a mount namespace of the command's own, which is gone with it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what commands read."""
    made = tmp_path_factory.mktemp("made")
    assert here("run", "small", "-m", "inline", "--json", str(made / "result.json")).code == 0
    assert here("snapshot", "save", str(made / "snapshot"), "--scenario", "small").code == 0
    made.chmod(0o755)
    (made / "snapshot").chmod(0o644)
    return made


def test_every_command_is_tried() -> None:
    assert [name for name, _ in commands()] == list(COMMANDS)


@dataclass(frozen=True)
class Try:
    """A command, the trouble it is in, when which signal comes (seconds), and how much of the disk is taken (bytes)."""

    command: str
    trouble: str
    moment: float
    signal: signal.Signals
    taken: int

    @classmethod
    def of(cls, number: int) -> Try:
        """The try of that number. All commands and all troubles take turns."""
        chance = random.Random(number)
        names = list(COMMANDS)
        command, trouble = names[number % len(names)], chance.choice(TROUBLES)
        moment = chance.uniform(0.0, chance.choice([0.3, 3.0]))
        return cls(command, trouble, moment, chance.choice([signal.SIGINT, signal.SIGTERM]), chance.randrange(36_000))


def numbers() -> list[int]:
    """Of all tries; in the short profile of the first with each trouble, those that take long left out."""
    if LONG or "MIGPOOL_TROUBLES" in os.environ:
        return list(range(TRIES))
    tries = [(number, this) for number in range(TRIES) if (this := Try.of(number)).command not in LONG_ONES]
    return list({this.trouble: number for number, this in reversed(tries)}.values())


@pytest.mark.timeout(LIMIT + 30)
@pytest.mark.parametrize("number", numbers())
def test_whatever_happens_it_ends_in_order_and_harms_no_file(number: int, made: Path, tmp_path: Path) -> None:
    this = Try.of(number)
    if this.trouble in NEED_ROOT and os.geteuid():
        pytest.skip(f"{this.trouble}: only root can mount, or be somebody else")
    out, kept = tmp_path / "out", tmp_path / "kept"
    for directory in (out, kept):
        directory.mkdir(mode=0o755)
        for name in KEPT:
            (directory / name).write_text(BEFORE)
    code, err = ended(this, made, out, kept)
    if this.trouble == "signal" and "migpool/cli" not in err and "KeyboardInterrupt" in err:
        return  # Python itself was being started: the command line had not begun
    assert not [word for word in NO_WORDS if word in err], f"{this}: {err}"
    assert code in allowed(this), f"{this} ended with {code}: {err}"
    if code not in (0, ExitCode.CANCELLED, ExitCode.TERMINATED, -signal.SIGINT, -signal.SIGTERM):
        # It is migpool that says why, and not what it was started by.
        assert "migpool: " in err or this.trouble == "no reader", f"{this} ended with {code} and says: {err}"
    for name in KEPT:
        text = (out / name).read_bytes()
        assert text == BEFORE.encode() or whole(name, text), (
            f"{this} left {name} as {text[:40]!r}... of {len(text)} bytes"
        )
    for name in NEW:
        if (out / name).exists():
            assert whole(name, (out / name).read_bytes()), f"{this} left a piece of {name}"
    assert not list(out.glob("**/*.new")), f"{this} left a piece of a file"


def ended(this: Try, made: Path, out: Path, kept: Path) -> tuple[int, str]:
    """The exit code and what stood on stderr."""
    places = {"out": out, "made": made, "stream": STREAM, "kept": kept, "taken": this.taken}
    places["findings"] = ROOT / "docs" / "results" / "2026-11-26"
    places["sweep"] = ROOT / "docs" / "examples" / "sweep.toml"
    places |= {"source": TRACES / "source.log.xz", "destination": TRACES / "destination.log.xz"}
    words = [word.format(**places) for word in f"{this.command} {COMMANDS[this.command]}".split()]
    program = [sys.executable, "-m", "migpool", *words]
    if this.trouble in NEED_ROOT:
        user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if this.trouble == "no permission" else []
        before = NEED_ROOT[this.trouble].format(**places)
        after = f"rc=$?; cp -r {out}/. {kept} 2>/dev/null; exit $rc"
        script = f'set -e; {before}; set +e; "$@"; {after}'
        program = ["unshare", "--mount", "sh", "-c", script, "sh", *user, *program]
    reader, writer = os.pipe()
    if this.trouble == "no reader":
        os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    with as_a_user_does():
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" >&-', "sh", *program] if this.trouble == "no stdout" else program,
            stdin=subprocess.DEVNULL,
            stdout=full
            if this.trouble == "full stdout"
            else writer
            if this.trouble == "no reader"
            else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=kept if this.trouble == "no permission" else out,
            env={**os.environ, "COLUMNS": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    for descriptor in (full, writer, *(() if this.trouble == "no reader" else (reader,))):
        os.close(descriptor)
    timer = threading.Timer(this.moment, os.killpg, (process.pid, this.signal))
    if this.trouble == "signal":
        timer.start()
    elif this.command in WITHOUT_END:
        timer = threading.Timer(3.0, os.killpg, (process.pid, signal.SIGINT))
        timer.start()
    try:
        _, err = process.communicate(timeout=LIMIT)
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if this.trouble == "full disk":
        for path in kept.iterdir():
            if path.is_file():
                (out / path.name).write_bytes(path.read_bytes())
    return process.returncode, err


def allowed(this: Try) -> set[int]:
    """The exit codes with which the command may end in that trouble."""
    codes = {0, 1, int(ExitCode.USAGE)}
    if this.trouble == "signal":
        codes |= {128 + this.signal, -this.signal}
    elif this.command in WITHOUT_END:
        codes |= {int(ExitCode.CANCELLED), -signal.SIGINT}
    return codes


def whole(name: str, data: bytes) -> bool:
    """Whether a file is one that its command wrote to the end."""
    match Path(name).suffix:
        case ".json":
            return isinstance(json.loads(data), dict)
        case ".svg":
            return data.rstrip().endswith(b"</svg>")
        case ".html":
            return data.rstrip().endswith(b"</html>")
        case ".md" | ".toml":
            return data.endswith(b"\n")
        case _:
            return data.startswith(b"QEVM") and len(data) > 100
