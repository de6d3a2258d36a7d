"""Searches the model of the hand-over with Spin: ``python -m tests.model``.

Every property of ``handover.pml`` is searched for a counterexample in every state of every variant, and none may be
found. Then each mistake that the model can make is switched on, and a counterexample must be found: a search that finds
nothing there would find nothing anywhere. Last, what both ends can come to is compared with ``endings.txt``, which the
tests hold the real ends to; ``--write`` writes it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).with_name("handover.pml")
ENDINGS: Final = Path(__file__).with_name("endings.txt")
VARIANTS: Final[Mapping[str, Sequence[str]]] = {
    "tls": (),
    "one host": ("LOCAL",),
    "tls, QEMU's return path": ("PLAIN",),
    "one host, QEMU's return path": ("LOCAL", "PLAIN"),
}
"""What is chosen in the model for each: see there."""
MISTAKES: Final[Mapping[str, tuple[Sequence[str], str]]] = {
    "SENDS_THE_END_FIRST": ((), "never_two"),
    "TAKES_BACK_WHAT_IT_COULD_NOT_WRITE": ((), "never_two"),
    "TAKES_SILENCE_FOR_AN_ANSWER": (("LOCAL",), "never_two"),
    "TAKES_A_CUT_FOR_AN_END": ((), "never_two"),
    "TAKES_BACK_WHAT_RUNS_THERE": (("LOCAL",), "never_two"),
    "STARTS_WITHOUT_THE_END": (("LOCAL",), "never_two"),
    "STARTS_WITHOUT_ALL_STATE": (("LOCAL",), "whole"),
    "DECIDES_IN_TWO_STEPS": (("LOCAL",), "whole"),
    "LEAVES_A_HALF_STARTED_MACHINE": (("LOCAL",), "never_two"),
    "CALLS_WHAT_RUNS_FAILED": (("LOCAL", "PLAIN"), "never_two"),
    "LOOKS_AND_DOES_NOT_WAIT": (("LOCAL",), "never_two"),
    "KEEPS_BACK_ITS_OUTCOME": (("LOCAL",), "standing_is_told"),
    "LEAVES_IT_STOPPED": (("LOCAL",), "back_again"),
    "WAITS_FOR_EVER": (("LOCAL",), "both_end"),
    "CALLS_IT_MOVED_TOO_EARLY": (("LOCAL",), "completed_is_moved"),
}
"""For each mistake, the variant that it is made in, and the property that does not hold then."""
CALM: Final = "moves"
"""The property of a migration in which nothing goes wrong."""
PROPERTIES: Final = tuple(
    name for name in re.findall(r"^ltl (\w+)", MODEL.read_text("utf-8"), re.MULTILINE) if name != CALM
)
LIMIT: Final = 300.0


class Broken(Exception):
    """The model does not hold, or cannot be searched; the message is one line for each thing."""


class Search:
    """A variant of the model as a program that visits all its states.

    Arguments:
        folder: where it is made.
        chosen: what is chosen in the model.
        compiler: further options of the C compiler's.
    """

    def __init__(self, folder: Path, chosen: Sequence[str], compiler: Sequence[str] = ()) -> None:
        self._folder = folder
        folder.mkdir()
        _run(["spin", "-a", *(f"-D{name}" for name in chosen), str(MODEL)], folder)
        _run(["gcc", "-O1", "-w", *compiler, "-o", "pan", "pan.c"], folder)

    def counterexamples(self, name: str) -> tuple[int, int]:
        """How many counterexamples to a property were found, the search ending with the first; and states visited."""
        told = _run(["./pan", "-a", "-f", "-m100000", "-N", name], self._folder)
        if "max search depth too small" in told or f"({name})" not in told:
            raise Broken(f"{name}: the search did not see all of it")
        return _number(r"errors: (\d+)", told), _number(r"(\d+) states, stored", told)

    def endings(self) -> list[str]:
        """What both ends can come to."""
        told = _run(["./pan", "-m100000"], self._folder)
        if _number(r"errors: (\d+)", told):
            raise Broken("the ends wait for each other")
        return sorted(set(re.findall(r"^ending: (.*)$", told, re.MULTILINE)))


def main() -> int:
    """Search all of it; 1 if something does not hold."""
    parser = argparse.ArgumentParser(prog="model", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what both ends can come to")
    write = parser.parse_args().write
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(made)
        held = [pool.submit(_holds, folder / f"v{at}", name) for at, name in enumerate(VARIANTS)]
        found = [pool.submit(_is_found, folder / name, name) for name in MISTAKES]
        listed = pool.submit(_endings, folder)
        wrong: list[str] = []
        for each in (*held, *found):
            line, holds = each.result()
            print(line)  # noqa: T201
            wrong += [] if holds else [line]
        endings = listed.result()
    if write:
        ENDINGS.write_text(endings, "utf-8")
    elif endings != ENDINGS.read_text("utf-8"):
        wrong.append("endings.txt is not what the model comes to: python -m tests.model --write, then see the tests")
    for line in wrong:
        print(f"model: {line}", file=sys.stderr)  # noqa: T201
    print(f"model: {len(VARIANTS)} variants, {len(MISTAKES)} mistakes, {time.monotonic() - begin:.0f} s")  # noqa: T201
    return 1 if wrong else 0


def _holds(folder: Path, variant: str) -> tuple[str, bool]:
    search = Search(folder, VARIANTS[variant])
    found = {name: search.counterexamples(name) for name in PROPERTIES}
    calm = Search(folder / "calm", [*VARIANTS[variant], "CALM"])
    found[CALM] = calm.counterexamples(CALM)
    broken = [name for name, (errors, _) in found.items() if errors]
    states = max(states for _, states in found.values())
    return f"{variant}: {len(found)} properties, {states} states, broken: {', '.join(broken) or 'none'}", not broken


def _is_found(folder: Path, mistake: str) -> tuple[str, bool]:
    chosen, name = MISTAKES[mistake]
    errors, _ = Search(folder, [*chosen, mistake]).counterexamples(name)
    return f"{mistake}: {'a counterexample' if errors else 'NO COUNTEREXAMPLE'} to {name}", bool(errors)


def _endings(folder: Path) -> str:
    told = ["# What both ends can come to, as the model says (python -m tests.model --write).\n"]
    for at, (variant, chosen) in enumerate(VARIANTS.items()):
        search = Search(folder / f"e{at}", [*chosen, "ENDINGS"], ["-DSAFETY", "-DNOCLAIM"])
        told += [f"\n[{variant}]\n", *(f"{ending}\n" for ending in search.endings())]
    return "".join(told)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise Broken(f"Spin has not said {pattern!r}: {text[-300:]!r}")
    return int(found[1])


def _run(command: Sequence[str], folder: Path) -> str:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    if ended.returncode or "Error:" in ended.stdout:
        raise Broken(f"{' '.join(command)}: {(ended.stdout + ended.stderr)[-500:]!r}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main())
