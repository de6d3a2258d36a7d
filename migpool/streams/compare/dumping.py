"""All that a QEMU program knows of device state: the program is run with ``-dump-vmstate``, under a time limit."""

from __future__ import annotations

import json
import subprocess
from typing import Final

from migpool.errors import DescriptionError, UsageError
from migpool.streams.compare.sides import Side
from migpool.vmsd.layout import from_json

LIMIT: Final = 60.0
"""Seconds that a program has."""
_STDOUT: Final = "/dev/stdout"
"""A file there would not be seen of a program that runs in a container."""
_SHOWN: Final = 300


def dumped_side(program: str, machine: str, limit: float = LIMIT) -> Side:
    """Run a QEMU and read what it wrote.

    Arguments:
        program: its name on the PATH, or where it is.
        machine: the machine type.
        limit: after how many seconds it is killed.

    Raises:
        UsageError: it cannot be started, does not end, fails, or wrote nothing that can be read.
    """
    command = [program, "-M", machine, "-nodefaults", "-display", "none", "-dump-vmstate", _STDOUT]
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False)
    except OSError as error:
        raise UsageError(f"{program} cannot be run: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{program} did not end within {limit:g} s of -dump-vmstate: is it a QEMU program?") from None
    where = f"{program} -M {machine}"
    if ended.returncode or not ended.stdout.strip():
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        why = f"it said: {said[0][:_SHOWN]}" if said else f"exit code {ended.returncode}"
        raise UsageError(f"{where} wrote no description with -dump-vmstate: {why}")
    try:
        document = json.loads(ended.stdout)
    except (ValueError, RecursionError) as error:
        raise DescriptionError(f"{where}: what it wrote with -dump-vmstate is no JSON: {error}") from None
    return Side(where, from_json(document, where))
