"""Writes a scenario from what was measured of a QEMU's migration, with a word on where each number comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from migpool.errors import UsageError
from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.measured import GUESSED, MeasuredMachine, MeasuredPart, measured
from migpool.lab.qemu.recorded import add_sizes, recorded
from migpool.scenario.messages import toml_table
from migpool.scenario.schema import parse_scenario
from migpool.units import MIB, format_duration, written_size

RAM_NAME: Final = "last round of ram"
"""What the scenario calls it: "ram" is the memory's own name, whose pages it does not have."""
_TIMES: Final = ("stop", "read", "save", "write", "load", "start", "channel")
_LONGEST: Final = 80


def scenario_from(sources: Sequence[Path]) -> str:
    """The text of a scenario.

    Arguments:
        sources: the trace logs of both sides, source first; a recording; or both, whose sizes the recording then says.

    Raises:
        UsageError: they are of no migration that ended, or not enough.
    """
    recordings = [path for path in sources if path.is_dir()]
    logs = [path for path in sources if not path.is_dir()]
    if len(recordings) > 1 or len(logs) > 2:
        raise UsageError("one migration at a time: give two trace logs, a recording, or these three")
    if len(logs) == 1:
        raise UsageError(f"{logs[0]}: give both sides' logs, since a scenario needs what both took, or a recording")
    if logs:
        machine = measured(explain(*logs))
        if recordings:
            add_sizes(machine, recordings[0])
    else:
        machine = recorded(recordings[0])
    text = scenario_text(machine, [path.name for path in sources])
    parse_scenario(toml_table(text, "the scenario"), "the scenario")  # what is written can be read
    return text


def scenario_text(machine: MeasuredMachine, names: Sequence[str]) -> str:
    """A machine as a scenario.

    Arguments:
        names: of what it was measured by.
    """
    way = "over the multifd channels" if machine.transfer else "in the main channel"
    took = format_duration(machine.downtime / 1e9)
    lines = [
        f"# Made by `migpool scenario from`. Measured: {took} of downtime, iterable devices {way}.",
        *(f"# {note}" for note in machine.notes),
        "",
        f"name = {_text(_cut(' and '.join(names)))}",
        f"description = {_text(f'{took} as measured, iterable devices {way}')}",
        "",
        *(["[machine]", f"name = {_text(machine.machine)}", ""] if machine.machine else []),
        "[channels]",
        f"count = {max(1, machine.channels)}{_said(not machine.channels, 'QEMU had none: this is the least')}",
        "",
        "[memory]",
        f'budget = "{written_size(_budget(machine))}"  # QEMU has no limit',
    ]
    for part in machine.parts:
        lines += ["", *_entry(part)]
    return "\n".join([*lines, ""])


def _entry(part: MeasuredPart) -> list[str]:
    options = [f"name = {_text(RAM_NAME if part.ram else part.name)}"]
    if part.instance:
        options.append(f"instance = {part.instance}")
    if part.ram:
        options.append("memory = true")
    unknown = []
    for key, size in (
        ("size", part.size if part.iterable else 0),
        ("config_size", 0 if part.ram else part.config_size),
    ):
        if size is None:
            unknown.append(key)
            size = GUESSED
        if key == "size" and part.iterable:
            size = max(1, size)  # what has state has a byte
        if size:
            options.append(f"{key} = {size}")
    options += [f"{key} = {spent / 1e9:.6f}" for key in _TIMES if (spent := getattr(part, key)) >= 1000]
    said = _said(bool(unknown), f"{' and '.join(unknown)}: guessed, nothing says it")
    return ["[[devices]]", 'plugin = "measured"', f"options = {{{', '.join(options)}}}{said}"]


def _budget(machine: MeasuredMachine) -> int:
    state = sum((part.size or 0) + (part.config_size or 0) for part in machine.parts)
    return max(64, -(-state // MIB) + len(machine.parts)) * MIB


def _said(whether: bool, what: str) -> str:
    return f"  # {what}" if whether else ""


def _text(value: str) -> str:
    """As TOML has it, which is as JSON has it."""
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
