"""What ``migpool inspect`` does: a stream or a recording, shown. Nothing here takes long to import."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from migpool import streams
from migpool.cli.output import check_writable, complain, write
from migpool.errors import UsageError
from migpool.untrusted.text import printable_lines

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from migpool.streams.inspect.decoding import DecodedSection
    from migpool.streams.inspect.outline import Node
    from migpool.streams.inspect.summary import StreamSummary

_NAMES_SHOWN: Final = 12


def inspected(
    source: str,
    device: Sequence[str] = (),
    *,
    picture: Path | None = None,
    offset: int | None = None,
    snapshot: str | None = None,
    xml: bool = False,
    as_json: bool = False,
) -> int:
    """Inspect a stream or a recording, and return the exit code; the arguments are those of the command.

    Raises:
        UsageError: it cannot be read, or is not what an option asks for.
    """
    if not (source == "-" or device) and Path(source).is_dir():
        return inspect_recording(Path(source), as_json, picture)
    if picture is not None:
        raise UsageError("--picture draws a recording: name its directory")
    if xml:
        return print_xml(source, offset)
    return inspect_stream(source, device, as_json, offset=offset, snapshot=snapshot)


def inspect_stream(
    source: str, devices: Sequence[str], as_json: bool, *, offset: int | None = None, snapshot: str | None = None
) -> int:
    """Inspect one stream, print what was found, and return the exit code.

    Arguments:
        source: a path, ``-``, or a recording, of which only devices are shown.
        devices: patterns of the devices to decode; empty for the overview.
        as_json: print the document instead.
        offset: where in the file the stream begins.
        snapshot: which one of a qcow2 image.

    Raises:
        UsageError: it cannot be read, or a pattern matches nothing.
    """
    with streams.open(source, keep=devices, offset=offset, snapshot=snapshot) as stream:
        decoded = stream.devices() if devices else None
        return _report(stream.name, stream.summary, decoded, devices, as_json)


def print_xml(source: str, offset: int | None) -> int:
    """Print a libvirt save image's XML, and return the exit code.

    Raises:
        UsageError: it is no such image.
    """
    with streams.open(source, keep=(), offset=offset) as stream:
        if stream.xml is None:
            raise UsageError(f"{stream.name} has no XML: it is no save image of libvirt")
        print(printable_lines(stream.xml.rstrip()))  # noqa: T201
    return 0


def _report(
    name: str, summary: StreamSummary, decoded: list[DecodedSection] | None, devices: Sequence[str], as_json: bool
) -> int:
    """Print what was found, and return the exit code."""
    if as_json:
        from migpool.streams.inspect.document import document

        print(json.dumps(document(summary, decoded), indent=2))  # noqa: T201
    elif not decoded and (decoded is None or summary.problem is not None):
        from migpool.streams.inspect.outline import stream_outline

        _show([stream_outline(name, summary)])
    else:
        from migpool.streams.inspect.outline import device_outline

        _show([device_outline(device) for device in decoded])
    if summary.problem is not None:
        complain(str(summary.problem))
        return 1
    if decoded is not None:
        if not decoded:
            raise UsageError(f"no device matches {' or '.join(devices)}; there are {_names(summary)}")
        wrong = [device for device in decoded if device.fields is not None and not device.exact]
        if wrong:
            complain(f"the fields of {wrong[0].section.idstr}, encoded again, are not what the stream has")
            return 1
    return 0


def inspect_recording(path: Path, as_json: bool, picture_file: Path | None) -> int:
    """Explain a recording, and return the exit code: 1 if it is not complete or not understood.

    Arguments:
        as_json: print the explanation as JSON.
        picture_file: where to draw it, as SVG.

    Raises:
        UsageError: there is no recording in it.
    """
    from migpool.streams.record.explain import explain
    from migpool.streams.record.picture import picture
    from migpool.streams.record.terminal import show as show_explanation

    check_writable(picture_file)
    explanation = explain(path)
    if as_json:
        from dataclasses import asdict

        print(json.dumps({"schema": 1, "kind": "recording", **asdict(explanation)}, indent=2))  # noqa: T201
    else:
        from migpool.lab.report.table import console_for

        show_explanation(explanation, console_for(sys.stdout))
    if picture_file is not None:
        write(picture_file, picture(explanation))
    understood = not any(channel.trouble for channel in explanation.channels)
    return 0 if explanation.complete and understood else 1


def _show(roots: Sequence[Node]) -> None:
    """Print outlines: as trees on a terminal, else as plain text, one line each and never broken."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.tree import Tree

        console = Console(file=sys.stdout)
        for root in roots:
            tree = Tree(_line(root, 0), guide_style="dim", highlight=False)
            _grow(tree, root)
            console.print(tree)
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


def _names(summary: StreamSummary) -> str:
    names = list(dict.fromkeys(section.idstr for section in summary.sections if section.kind == "FULL"))
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return (", ".join(map(repr, names[:_NAMES_SHOWN])) or "none") + more


def _grow(tree: Tree, node: Node) -> None:
    width = max((len(below.label) for below in node.below if below.detail), default=0)
    for below in node.below:
        _grow(tree.add(_line(below, width)), below)


def _line(node: Node, width: int) -> Text:
    from rich.text import Text

    style = "bold red" if node.bad else "bold"
    line = Text(node.label, style=style)
    if node.detail:
        line.append(" " * (max(0, width - len(node.label)) + 2), style="")
        line.append(node.detail, style="red" if node.bad else "not bold")
    return line
