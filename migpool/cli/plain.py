"""Calls that are understood without a parser.

The parser of all commands takes longer to import than a small stream to inspect, or a gibibyte of pages to count. So a
call that is plain enough is told here, and means what it means there; whatever is not quite plain is the parser's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

COMPLETING = "_MIGPOOL_COMPLETE"
"""The variable by which a shell asks the command for completions."""


def plain_call(arguments: Sequence[str]) -> Callable[[], int] | None:
    """What ``inspect SOURCE`` does, with ``--json`` and ``--device ID`` written out or without; else ``None``."""
    if arguments[:1] != ["inspect"] or COMPLETING in os.environ:
        return None
    sources: list[str] = []
    devices: list[str] = []
    as_json = False
    left = iter(arguments[1:])
    for one in left:
        if one == "--json":
            as_json = True
        elif one == "--device":
            device = next(left, "")
            if not device or device.startswith("-"):
                return None
            devices.append(device)
        elif one == "-" or (one and not one.startswith("-")):
            sources.append(one)
        else:
            return None
    if len(sources) != 1:
        return None
    from migpool.cli.inspection import inspected

    return lambda: inspected(sources[0], devices, as_json=as_json)
