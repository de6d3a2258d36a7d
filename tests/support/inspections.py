"""Inspects streams as the commands do, each in a line."""

from __future__ import annotations

from pathlib import Path

from migpool import streams
from migpool.streams.envelope.opening import Opened
from migpool.streams.envelope.source import PipeSource, Readable
from migpool.streams.inspect.reading import LIMIT, Inspection, nothing_wanted
from migpool.streams.inspect.summary import StreamSummary
from migpool.streams.inspect.walk import Wanted


def inspect_file(path: Path) -> StreamSummary:
    with streams.open(path, keep=()) as stream:
        return stream.summary


def inspect_pipe(pipe: Readable, wanted: Wanted = nothing_wanted, *, limit: int = LIMIT) -> StreamSummary:
    """Of what comes out of a pipe, wrapped in nothing. ``limit``: of what is kept, in bytes."""
    source = PipeSource(pipe)
    return Inspection(Opened(source, first=source.peek(8)), wanted, limit=limit).summary()
