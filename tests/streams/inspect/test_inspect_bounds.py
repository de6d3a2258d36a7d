"""A recording of any size takes constant memory; what must be kept of a pipe is bounded."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migpool.streams.envelope.opening import open_path
from migpool.streams.inspect.boundaries import PATIENCE
from migpool.streams.inspect.reading import Inspection, inspect_bytes
from migpool.streams.inspect.summary import Framing
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages
from migpool.wire.records import data_record, end_payload, setup_payload
from migpool.wire.sections import footer, section_end, section_part
from migpool.wire.stream import eof, header
from tests.support.inspections import inspect_file, inspect_pipe
from tests.support.wire_bytes import section_full, section_start

MIB = 1 << 20
PAGE = bytes(range(256)) * 16
END = bytes(7) + b"\x10"
PROLOGUE = header() + configuration(Configuration("q"))


def ram(megabytes: int, *, early: bytes = b"") -> Iterator[bytes]:
    """A stream of so many MiB of pages, in pieces; ``early`` stands between RAM's START and its PART sections."""
    size = megabytes * MIB
    start = section_start(2, "ram", [block_list([RamBlock("a", size)]), END], version=4)
    yield PROLOGUE + b"".join(map(bytes, start)) + early
    for at in range(0, size, MIB):
        entries = [(address, PAGE) for address in range(at, at + MIB, 4096)]
        yield b"".join(map(bytes, section_part(2, [*pages("a", entries), END])))
    yield b"".join(map(bytes, section_end(2, END))) + eof()


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Fail if more than ``limit`` bytes are allocated at any time inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak} bytes were allocated"


def test_the_pages_of_a_large_file_and_of_a_large_pipe_are_not_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("large") / "ram.mig"
    with path.open("wb") as file:
        file.writelines(ram(64))
    with at_most(4 * MIB):
        summary = inspect_file(path)
    with at_most(8 * MIB), path.open("rb") as file:
        assert inspect_pipe(file) == summary
    assert summary.problem is None
    assert [(block.normal, block.zero) for block in summary.blocks] == [(64 * 256, 0)]
    assert [section.count for section in summary.sections] == [1, 64, 1]


def test_a_section_that_is_saved_early_does_not_make_a_pipe_wait_for_the_end() -> None:
    early = b"".join(map(bytes, section_full(7, "virtio-mem-early", b"state")))
    stream = b"".join(ram(PATIENCE // MIB + 4, early=early))
    for summary in (inspect_pipe(io.BytesIO(stream)), inspect_bytes(stream)):
        assert summary.problem is None
        (found,) = [section for section in summary.sections if section.kind == "FULL"]
        assert (found.idstr, found.size, found.framing) == ("virtio-mem-early", 5, Framing.GUESSED)


def test_no_more_is_kept_of_a_pipe_than_is_allowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    stream = PROLOGUE + b"".join(map(bytes, section_full(1, "d", bytes(3 * MIB)))) + eof()
    allowed = inspect_pipe(io.BytesIO(stream), limit=4 * MIB)
    assert allowed.problem is None
    refused = inspect_pipe(io.BytesIO(stream), limit=MIB)
    assert refused.problem is not None
    assert f"at most {MIB} bytes" in refused.problem.expected
    assert refused.size == len(stream)
    path: Path = tmp_path_factory.mktemp("limit") / "d.mig"
    path.write_bytes(stream)
    with open_path(path) as opened:
        assert Inspection(opened, limit=4 * MIB).summary() == allowed


def test_the_state_of_a_vfio_device_in_one_section_is_not_kept() -> None:
    record = b"".join(map(bytes, data_record(bytes(MIB))))
    marks = b"".join(map(bytes, setup_payload()))

    def pieces() -> Iterator[bytes]:
        yield PROLOGUE + b"".join(map(bytes, section_start(3, "0000:01:00.0/vfio", marks)))
        yield bytes((3,)) + (3).to_bytes(4, "big")
        for _ in range(40):
            yield record
        yield end_payload() + footer(3) + eof()

    with at_most(8 * MIB):
        summary = inspect_pipe(Pipe(pieces()), limit=2 * MIB)
    assert summary.problem is None
    assert [(one.kind, one.size) for one in summary.sections] == [("START", 16), ("END", 40 * (MIB + 16) + 8)]


class Pipe:
    """Gives what comes in pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int, /) -> bytes:
        self._left = self._left or next(self._pieces, b"")
        part, self._left = self._left[:size], self._left[size:]
        return part
