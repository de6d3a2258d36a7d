"""Streams that were cut or damaged, on every way into ``migpool inspect``, and what the command must make of them."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path

import typer

from migpool.cli.commands.inspect import inspect
from migpool.cli.exit_code import explain
from migpool.streams.inspect.reading import inspect_bytes
from tests.support.commandline import Ended, here
from tests.support.inspect_command import fed

Names = list[tuple[object, object]]
"""The kind and idstr of sections, in their order."""


Run = Callable[..., Ended]
"""``inspect``, given its arguments."""


def by_command(*arguments: str) -> Ended:
    """The whole command line."""
    return here("inspect", *arguments)


def by_function(source: str, *arguments: str) -> Ended:
    """The command's function alone: to take apart its arguments takes longer than a small stream."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            inspect(source, ["*"] if "--device" in arguments else None, None, None, None, False, "--json" in arguments)
        except typer.Exit as end:
            code = end.exit_code
        except Exception as error:  # noqa: BLE001 -- as main does
            lines, code = explain(error)
            err.write("".join(f"{line}\n" for line in lines))
    return Ended(int(str(code)), out.getvalue(), err.getvalue())


def as_file(run: Run, folder: Path, stream: bytes, *arguments: str) -> Ended:
    (folder / "stream").write_bytes(stream)
    return run(str(folder / "stream"), *arguments)


def as_gzip(run: Run, folder: Path, stream: bytes, *arguments: str) -> Ended:
    return as_file(run, folder, gzip.compress(stream, 1), *arguments)


def as_image(run: Run, folder: Path, stream: bytes, *arguments: str) -> Ended:
    xml = b"<domain/>\0"
    numbers = (2, len(xml), 1, 3, 0)
    head = b"LibvirtQemudSave" + b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(56)
    return as_file(run, folder, head + xml + lzma.compress(stream, preset=0), *arguments)


def as_pipe(run: Run, folder: Path, stream: bytes, *arguments: str) -> Ended:
    del folder
    return fed(stream, "-", *arguments, run=run)


def as_named_pipe(run: Run, folder: Path, stream: bytes, *arguments: str) -> Ended:
    fifo = folder / "fifo"
    if not fifo.exists():
        os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(stream,))
    writer.start()
    try:
        return run(str(fifo), *arguments)
    finally:
        writer.join(60)


WAYS = {way.__name__: way for way in (as_file, as_gzip, as_image, as_pipe, as_named_pipe)}


def walked(ended: Ended) -> dict[str, object]:
    """The document that was printed, once the command has ended as it must."""
    assert ended.code in (0, 1), ended
    assert "should not have happened" not in ended.err
    document: dict[str, object] = json.loads(ended.out)
    if ended.code:
        assert ended.err.startswith("migpool: ")
        assert ended.err.count("\n") == 1
        assert document["problem"] is not None
    else:
        assert (ended.err, document["problem"]) == ("", None)
    return document


def named(document: dict[str, object]) -> Names:
    """The sections of a document."""
    sections = document["sections"]
    assert isinstance(sections, list)
    return [(section["kind"], section["idstr"]) for section in sections]


def names_within(stream: bytes) -> Names:
    """Those of a stream that is whole."""
    return [(one.kind, one.idstr) for one in inspect_bytes(stream).sections]


def check_cut(run: Run, folder: Path, way: str, stream: bytes, whole: Names, size: int) -> dict[str, object]:
    """Inspect the first ``size`` bytes of a stream: what is there must be shown.

    Arguments:
        run: the command.
        folder: for files.
        way: which of :data:`WAYS`.
        stream: all of it.
        whole: its sections.
    """
    document = walked(WAYS[way](run, folder, stream[:size], "--json"))
    found = named(document)
    assert found == whole[: len(found)]
    assert document["size"] == size
    return document
