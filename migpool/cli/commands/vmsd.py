"""Descriptions of device state (VMSD): whether one machine or version can read what another wrote.

The JSON (schema 2)::

    schema      2
    a, b        the two files, or the two programs
    direction   "forward", "backward" or "both": which counts
    strict      whether "cannot tell" counts as a break
    compatible  whether the exit code is 0: it loads in the direction that counts, as far as descriptions tell
    forward     the worst verdict on a migration from a to b: "loads", "cannot tell" or "breaks"
    backward    the same from b to a
    changes     [{path, forward, backward, reason}], in the order of the devices
    not_looked_at  [sentences]: what the two do not tell, so that "loads" is said as far as descriptions tell
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from migpool.cli.exit_code import ExitCode
from migpool.cli.lazy import group
from migpool.cli.options import Debug
from migpool.errors import UsageError
from migpool.streams.compare.dumping import dumped_side
from migpool.streams.compare.sides import Comparison, compare_sides, read_side
from migpool.units import count_of
from migpool.untrusted.text import printable
from migpool.vmsd.diff import Change, Compatibility, Verdict, compatibility

app = group((__doc__ or "").partition("\n")[0])

_WAYS: Final = {(True, True): "both ways", (True, False): "forward", (False, True): "backward"}
_NAMES: Final = {Verdict.LOADS: "loads", Verdict.CANNOT_TELL: "cannot tell", Verdict.BREAKS: "breaks"}


class Direction(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


@app.command()
def diff(
    old: Annotated[Path | None, typer.Argument(metavar="A", help="The old side; forward is from A to B.")] = None,
    new: Annotated[Path | None, typer.Argument(metavar="B", help="The new one, of the same form.")] = None,
    qemu: Annotated[
        list[str] | None,
        typer.Option("--qemu", metavar="PROGRAM", help="Compare two QEMUs instead: given twice, old and new."),
    ] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", metavar="TYPE", help="With --qemu: for which machine type.")
    ] = None,
    direction: Annotated[
        Direction, typer.Option("--direction", help="Which direction counts for the exit code.", show_default=True)
    ] = Direction.FORWARD,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count what cannot be told as a break.", show_default=False)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 2).", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """Say which differences of two machines or versions break a migration, in which direction, and why.

    A and B are streams (gzip too), the JSON at a stream's end, or files that
    [cyan]-dump-vmstate[/] wrote; --qemu runs two programs with that option.
    Forward is a migration from A to B, backward one from B to A. A stream of B
    stands for the machine that is to load: make it on that machine.

    Exit codes: 0 loads, as far as descriptions tell; 1 something breaks; 3 cannot
    tell (with --strict 1); 2 wrong usage. docs/vmsd-diff.md has the rules, and
    how they fare against real loads.

      [cyan]migpool vmsd diff old.json new.json[/]

      [cyan]migpool vmsd diff 9.2.mig 10.0.mig --direction both --strict[/]

      [cyan]migpool vmsd diff --qemu ./old/qemu-system-x86_64 --qemu qemu-system-x86_64 --machine pc-q35-9.2[/]
    """
    if qemu:
        if len(qemu) != 2 or machine is None or old is not None:
            raise UsageError("--qemu is given twice, for the old program and the new one, with --machine and no files")
        sides = [dumped_side(program, machine) for program in qemu]
    else:
        if old is None or new is None or machine is not None:
            raise UsageError("compare two files, A and B; or two programs: --qemu OLD --qemu NEW --machine TYPE")
        sides = [read_side(path) for path in (old, new)]
    found = compare_sides(*sides)
    worst = compatibility(found.changes)
    counting = _counting(worst, direction)
    breaks = counting >= (Verdict.CANNOT_TELL if strict else Verdict.BREAKS)
    code = ExitCode.FAILED if breaks else ExitCode.CANNOT_TELL if counting is Verdict.CANNOT_TELL else ExitCode.DONE
    if as_json:
        head = {"schema": 2, "a": sides[0].where, "b": sides[1].where, "direction": direction.value, "strict": strict}
        told = [{"path": one.path, **_verdicts(one), "reason": one.reason} for one in found.changes]
        rest = {"compatible": code == 0, **_verdicts(worst), "changes": told, "not_looked_at": found.unseen}
        print(json.dumps({**head, **rest}, indent=2))  # noqa: T201
    else:
        for line in _lines(found, worst, direction):
            print(printable(line))  # noqa: T201
    raise typer.Exit(code)


def _verdicts(one: Change | Compatibility) -> dict[str, str]:
    return {"forward": _NAMES[one.forward], "backward": _NAMES[one.backward]}


def _counting(one: Change | Compatibility, direction: Direction) -> Verdict:
    """The worst verdict in the direction that counts."""
    forward, backward = direction is not Direction.BACKWARD, direction is not Direction.FORWARD
    return max([one.forward] * forward + [one.backward] * backward)


def _lines(found: Comparison, worst: Compatibility, direction: Direction) -> list[str]:
    """The verdicts; every change, first what is worst in the direction that counts; and what was not looked at."""
    worst_first = sorted(found.changes, key=lambda one: (-_counting(one, direction), -_counting(one, Direction.BOTH)))
    return [
        f"{_said('forward (A into B)', worst.forward)}; {_said('backward (B into A)', worst.backward)}; "
        f"{_counted(found.changes)}",
        *(f"{_verdict(change)}: {change.path}: {change.reason}" for change in worst_first),
        *(f"not looked at: {sentence}" for sentence in found.unseen),
    ]


def _counted(changes: Sequence[Change]) -> str:
    worst = [max(change.forward, change.backward) for change in changes]
    breaks, unclear = worst.count(Verdict.BREAKS), worst.count(Verdict.CANNOT_TELL)
    return (
        f"{count_of(len(changes), 'difference')}, {breaks} that {'breaks' if breaks == 1 else 'break'}, "
        f"{unclear} of which one cannot tell"
    )


def _said(way: str, verdict: Verdict) -> str:
    return f"{way}: {_NAMES[verdict]}" + (" as far as descriptions tell" if verdict is Verdict.LOADS else "")


def _verdict(change: Change) -> str:
    """What a change does, in few words; what breaks for certain comes before what may."""
    parts = []
    for level in (Verdict.BREAKS, Verdict.CANNOT_TELL):
        which = change.forward is level, change.backward is level
        if any(which):
            parts.append(f"{_NAMES[level]} {_WAYS[which]}")
    return ", ".join(parts) or _NAMES[Verdict.LOADS]
