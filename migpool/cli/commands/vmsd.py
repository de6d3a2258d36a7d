"""Descriptions of device state (VMSD): whether one version can read what another wrote.

The JSON (schema 1)::

    schema      1
    a, b        the two files
    direction   "forward", "backward" or "both": which counts
    strict      whether "depends" counts as a break
    compatible  whether nothing that counts breaks: the exit code is 0
    forward     the worst verdict on a migration from a to b: "safe", "depends" or "breaks"
    backward    the same from b to a
    changes     [{path, forward, backward, reason}], in the order of the devices
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from migpool.cli.lazy import group
from migpool.cli.options import Debug
from migpool.errors import UsageError
from migpool.streams.inspect.outline import printable
from migpool.units import count_of
from migpool.vmsd.diff import Change, Compatibility, Risk, compare, compatibility
from migpool.vmsd.layout import read_layouts

app = group((__doc__ or "").partition("\n")[0])

_BOTH: Final = {
    (True, True): "breaks both ways",
    (True, False): "breaks forward",
    (False, True): "breaks backward",
}


class Direction(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "both"


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="A", help="The old description; forward is from A to B.")],
    new: Annotated[Path, typer.Argument(metavar="B", help="The new one, of the same form.")],
    direction: Annotated[
        Direction, typer.Option("--direction", help="Which breaks count for the exit code.", show_default=True)
    ] = Direction.FORWARD,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count what breaks in some states only, too.", show_default=False)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """Say which differences of two descriptions break a migration, in which direction, and why.

    A and B are streams (gzip too), the JSON at a stream's end, or files that
    [cyan]-dump-vmstate[/] wrote. Forward is a migration from A to B, backward one from B to A.

    Exit codes: 0 compatible in the direction that counts, 1 something breaks,
    2 wrong usage.

      [cyan]migpool vmsd diff old.json new.json[/]

      [cyan]migpool vmsd diff 9.2.mig 10.0.mig --direction both --strict[/]
    """
    raise typer.Exit(
        print_diff(
            old,
            new,
            forward=direction is not Direction.BACKWARD,
            backward=direction is not Direction.FORWARD,
            strict=strict,
            as_json=as_json,
        )
    )


def print_diff(old: Path, new: Path, *, forward: bool, backward: bool, strict: bool, as_json: bool) -> int:
    """Compare two files, print the changes, and return the exit code.

    Arguments:
        old, new: what is compared; forward is from the old one to the new one.
        forward, backward: which directions count.
        strict: also what breaks in some states only counts.
        as_json: print the document instead.

    Raises:
        UsageError: a file cannot be used, or they are not of the same form.
    """
    ours, theirs = read_layouts(old), read_layouts(new)
    if ours.machine != theirs.machine:
        stream, dump = (old, new) if ours.machine else (new, old)
        raise UsageError(
            f"{stream} describes the devices of one machine and {dump} all that an executable knows: "
            f"compare two streams, or two files that -dump-vmstate wrote"
        )
    changes = compare(ours, theirs)
    worst = compatibility(changes)
    counting = max([worst.forward] * forward + [worst.backward] * backward)
    compatible = counting < (Risk.DEPENDS if strict else Risk.BREAKS)
    if as_json:
        name = "both" if forward and backward else "forward" if forward else "backward"
        head = {
            "schema": 1,
            "a": str(old),
            "b": str(new),
            "direction": name,
            "strict": strict,
            "compatible": compatible,
        }
        told = [{"path": one.path, **_risks(one), "reason": one.reason} for one in changes]
        print(json.dumps({**head, **_risks(worst), "changes": told}, indent=2))  # noqa: T201
    else:
        for line in _lines(changes, worst):
            print(printable(line))  # noqa: T201
    return 0 if compatible else 1


def _risks(one: Change | Compatibility) -> dict[str, str]:
    return {"forward": one.forward.name.lower(), "backward": one.backward.name.lower()}


def _lines(changes: Sequence[Change], worst: Compatibility) -> list[str]:
    worst_first = sorted(changes, key=lambda change: -max(change.forward, change.backward))
    lines = [f"{_verdict(change)}: {change.path}: {change.reason}" for change in worst_first]
    breaks = sum(Risk.BREAKS in (change.forward, change.backward) for change in changes)
    depends = sum(
        Risk.DEPENDS in (change.forward, change.backward) and Risk.BREAKS not in (change.forward, change.backward)
        for change in changes
    )
    does = {one: f"{one} that {'breaks' if one == 1 else 'break'}" for one in (breaks, depends)}
    said = f"{count_of(len(changes), 'difference')}, {does[breaks]}, {does[depends]} in some states"
    return [*lines, f"{said}; forward: {worst.forward.name.lower()}, backward: {worst.backward.name.lower()}"]


def _verdict(change: Change) -> str:
    """What a change does, in few words; what breaks for certain comes before what may."""
    parts = []
    for level, suffix in ((Risk.BREAKS, ""), (Risk.DEPENDS, " in some states")):
        which = change.forward is level, change.backward is level
        if any(which):
            parts.append(_BOTH[which] + suffix)
    return ", ".join(parts) or "safe"
