"""What ``migpool inspect`` does: read, decode, print."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from migpool.errors import UsageError
from migpool.streams.inspect.reading import LIMIT, inspect_file, inspect_mapped, inspect_pipe, nothing_wanted

if TYPE_CHECKING:
    from migpool.streams.inspect.outline import Node
    from migpool.streams.inspect.summary import StreamSummary
    from migpool.streams.inspect.walk import Wanted

__all__ = ["inspect_directory", "inspect_stream", "show"]

_NAMES_SHOWN = 12
_PLAIN_WIDTH = 100


def inspect_stream(source: str, devices: Sequence[str], as_json: bool) -> int:
    """Inspect one stream, print what was found, and return the exit code.

    Arguments:
        source: a path, or ``-``.
        devices: patterns of the devices to decode; empty for the overview.
        as_json: print the document instead.

    Raises:
        UsageError: it cannot be read, or a pattern matches nothing.
    """
    wanted: Wanted = nothing_wanted
    if devices:
        from migpool.streams.inspect.decoding import wanted_by

        wanted = wanted_by(devices)
    summary = _read(source, wanted)
    decoded = None
    if devices:
        from migpool.streams.inspect.decoding import decode

        decoded = decode(summary)
    if as_json:
        import json

        from migpool.streams.inspect.document import document

        print(json.dumps(document(summary, decoded), indent=2))  # noqa: T201
    elif decoded is None:
        from migpool.streams.inspect.outline import stream_outline

        show([stream_outline("standard input" if source == "-" else source, summary)])
    else:
        from migpool.streams.inspect.outline import device_outline

        show([device_outline(device) for device in decoded])
    if summary.problem is not None:
        _complain(str(summary.problem))
        return 1
    if decoded is not None:
        if not decoded:
            raise UsageError(f"no device matches {' or '.join(devices)}; there are {_names(summary)}")
        wrong = [device for device in decoded if device.fields is not None and not device.exact]
        if wrong:
            _complain(f"the fields of {wrong[0].section.idstr}, encoded again, are not what the stream has")
            return 1
    return 0


def inspect_directory(path: Path, devices: Sequence[str], as_json: bool, picture_file: Path | None) -> int:
    """Explain a recording, and return the exit code: 1 if it is not complete or not understood.

    Arguments:
        path: the directory.
        devices: must be empty: a recording has no devices that could be decoded without its streams' files.
        as_json: print the explanation as JSON.
        picture_file: where to draw it, as SVG.

    Raises:
        UsageError: there is no recording in it, or devices were asked for.
    """
    from migpool.streams.record.index import INDEX

    if devices:
        raise UsageError(f"--device needs a stream, {path} is a directory: name the main channel's file in it")
    if not (path / INDEX).is_file():
        raise UsageError(
            f"{path} is no recording, as it has no {INDEX}: name a stream's file, or a recording's directory"
        )
    from migpool.streams.record.explain import explain, picture
    from migpool.streams.record.explain import show as show_explanation

    explanation = explain(path)
    if picture_file is not None:
        picture(explanation, picture_file)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps({"schema": 1, "kind": "recording", **asdict(explanation)}, indent=2))  # noqa: T201
    else:
        from rich.console import Console

        wide = None if sys.stdout.isatty() else _PLAIN_WIDTH
        show_explanation(explanation, Console(file=sys.stdout, width=wide))
    understood = not any(channel.trouble for channel in explanation.channels)
    return 0 if explanation.complete and understood else 1


def show(roots: Sequence[Node]) -> None:
    """Print outlines: as trees on a terminal, else as plain text, one line each and never broken."""
    if sys.stdout.isatty():
        from migpool.cli.tree import print_trees

        print_trees(roots)
        return
    lines: list[str] = []
    for root in roots:
        _plain(root, 0, lines)
    print("\n".join(lines))  # noqa: T201


def _plain(node: Node, depth: int, lines: list[str]) -> None:
    width = max((len(below.label) for below in node.below if below.detail), default=0)
    if not depth:
        lines.append(f"{node.label}: {node.detail}")
    for below in node.below:
        lines.append(f"{'  ' * (depth + 1)}{below.label:{width}}  {below.detail}".rstrip())
        _plain(below, depth + 1, lines)


def _read(source: str, wanted: Wanted) -> StreamSummary:
    if source != "-":
        return inspect_file(Path(source), wanted)
    descriptor = sys.stdin.fileno()
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode) and not os.lseek(descriptor, 0, os.SEEK_CUR)
    if regular:
        return inspect_mapped(descriptor, "standard input", wanted, LIMIT)
    return inspect_pipe(sys.stdin.buffer, wanted)


def _names(summary: StreamSummary) -> str:
    names = list(dict.fromkeys(section.idstr for section in summary.sections if section.kind == "FULL"))
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (", ".join(map(repr, names[:_NAMES_SHOWN])) or "none") + more


def _complain(line: str) -> None:
    from migpool.streams.inspect.outline import printable

    sys.stdout.flush()
    print(f"migpool: {printable(line)}", file=sys.stderr)  # noqa: T201
