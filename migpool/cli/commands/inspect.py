"""``migpool inspect``: what is in a recorded stream."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from migpool.cli.options import Debug
from migpool.cli.output import check_writable, complain, write
from migpool.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from migpool.streams.inspect.decoding import DecodedSection
    from migpool.streams.inspect.outline import Node
    from migpool.streams.inspect.summary import StreamSummary
    from migpool.streams.inspect.walk import Wanted

_NAMES_SHOWN: Final = 12


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-|DIR",
            help="A stream: a file (gzip too), a named pipe, [cyan]-[/] for standard input; or a recording.",
        ),
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="ID",
            help="Show the fields of this device: IDSTR or IDSTR#INSTANCE, also with * ? [...]. May be repeated.",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw a recording, as SVG.", dir_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout (schema 1).", show_default=False)] = False,
    _: Debug = False,
) -> None:
    """Show what is in a migration stream: configuration, commands, RAM, every section, and devices' fields.

    A truncated or damaged stream is shown as far as it goes, with the error and
    its byte; the exit code is then 1.

      [cyan]migpool inspect vm.mig[/]

      [cyan]migpool inspect vm.mig --device '*ahci*' --json[/]

      [cyan]zcat vm.mig.gz | migpool inspect -[/]

      [cyan]migpool inspect recording --picture recording.svg[/]
    """
    if source != "-" and Path(source).is_dir():
        raise typer.Exit(inspect_recording(Path(source), device or [], as_json, picture))
    if picture is not None:
        raise UsageError("--picture draws a recording: name its directory")
    raise typer.Exit(inspect_stream(source, device or [], as_json))


def inspect_stream(source: str, devices: Sequence[str], as_json: bool) -> int:
    """Inspect one stream, print what was found, and return the exit code.

    Arguments:
        source: a path, or ``-``.
        devices: patterns of the devices to decode; empty for the overview.
        as_json: print the document instead.

    Raises:
        UsageError: it cannot be read, or a pattern matches nothing.
    """
    from migpool.streams.inspect.reading import nothing_wanted

    wanted: Wanted = nothing_wanted
    if devices:
        from migpool.streams.inspect.decoding import wanted_by

        wanted = wanted_by(devices)
    summary = _read(source, wanted)
    decoded = None
    if devices:
        from migpool.streams.inspect.decoding import decode

        decoded = decode(summary)
    return _report("standard input" if source == "-" else source, summary, decoded, devices, as_json)


def _report(
    name: str, summary: StreamSummary, decoded: list[DecodedSection] | None, devices: Sequence[str], as_json: bool
) -> int:
    """Print what was found, and return the exit code."""
    if as_json:
        from migpool.streams.inspect.document import document

        print(json.dumps(document(summary, decoded), indent=2))  # noqa: T201
    elif decoded is None:
        from migpool.streams.inspect.outline import stream_outline

        _show([stream_outline(name, summary)])
    else:
        from migpool.streams.inspect.outline import device_outline

        _show([device_outline(device) for device in decoded])
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


def inspect_recording(path: Path, devices: Sequence[str], as_json: bool, picture_file: Path | None) -> int:
    """Explain a recording, and return the exit code: 1 if it is not complete or not understood.

    Arguments:
        devices: patterns of the devices to decode, of the main channel and of the multifd channels; empty for the
            explanation.
        as_json: print the explanation as JSON.
        picture_file: where to draw it, as SVG.

    Raises:
        UsageError: there is no recording in it, or a pattern matches nothing.
    """
    from migpool.streams.record.index import INDEX

    if not (path / INDEX).is_file():
        raise UsageError(
            f"{path} is no recording, as it has no {INDEX}: name a stream's file, or a recording's directory"
        )
    if devices:
        return _inspect_devices_of(path, devices, as_json)
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


def _inspect_devices_of(path: Path, devices: Sequence[str], as_json: bool) -> int:
    """Decode devices of a recording: from sections of its main channel, and from packets of its other channels."""
    from migpool.streams.inspect.decoding import decode, wanted_by
    from migpool.streams.inspect.reading import inspect_file
    from migpool.streams.record.channels import summarise
    from migpool.streams.record.configs import configs
    from migpool.streams.record.index import load

    index = load(path)
    if index.main is None or not index.main.source.recorded:
        raise UsageError(f"{path}: the recording has no main channel, which describes the devices")
    wanted = wanted_by(devices)
    file = path / index.main.source.file
    summary = inspect_file(file, wanted)
    iterable = frozenset(summarise(file).iterable)
    beside = configs(path, index, iterable, summary.page_size, wanted)
    return _report(str(path), summary, decode(summary, beside), devices, as_json)


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


def _read(source: str, wanted: Wanted) -> StreamSummary:
    from migpool.streams.inspect.reading import LIMIT, inspect_file, inspect_mapped, inspect_pipe

    if source != "-":
        return inspect_file(Path(source), wanted)
    descriptor = sys.stdin.fileno()
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode) and not os.lseek(descriptor, 0, os.SEEK_CUR)
    if regular:
        return inspect_mapped(descriptor, "standard input", wanted, LIMIT)
    return inspect_pipe(sys.stdin.buffer, wanted)


def _complain(line: str) -> None:
    from migpool.streams.inspect.outline import printable

    complain(printable(line))


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
