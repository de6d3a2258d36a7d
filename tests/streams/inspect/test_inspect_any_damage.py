"""Cut or damaged anywhere, on every way in: shown as far as it goes, with one line about why, by the command itself.

``MIGPOOL_DAMAGES`` is how often on each of the five ways, cut and damaged, and draws new ones: 3000 make 5,000 of each
of the six captures.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migpool.streams.inspect.reading import inspect_bytes
from migpool.streams.record.index import Role
from tests.support.commandline import Ended, here
from tests.support.inspect_command import fed
from tests.support.made_recordings import Made, recording
from tests.support.other_streams import RICH, other
from tests.support.thinned import FEWER

CAPTURES = {
    "none": (RICH.parent / "none.mig").read_bytes(),
    "microvm": other("microvm-validate-uuid"),
    "isapc": other("isapc"),
    "dirty-bitmaps": other("i440fx-dirty-bitmaps")[:40_000],
    "no description": other("microvm-no-description"),
    "no footers": other("microvm-no-footers"),
}


def as_file(folder: Path, stream: bytes, *arguments: str) -> Ended:
    (folder / "stream").write_bytes(stream)
    return here("inspect", str(folder / "stream"), *arguments)


def as_gzip(folder: Path, stream: bytes, *arguments: str) -> Ended:
    return as_file(folder, gzip.compress(stream, 1), *arguments)


def as_image(folder: Path, stream: bytes, *arguments: str) -> Ended:
    xml = b"<domain/>\0"
    numbers = (2, len(xml), 1, 3, 0)
    head = b"LibvirtQemudSave" + b"".join(number.to_bytes(4, "little") for number in numbers) + bytes(56)
    return as_file(folder, head + xml + lzma.compress(stream, preset=0), *arguments)


def as_pipe(folder: Path, stream: bytes, *arguments: str) -> Ended:
    del folder
    return fed(stream, "inspect", "-", *arguments)


def as_named_pipe(folder: Path, stream: bytes, *arguments: str) -> Ended:
    fifo = folder / "fifo"
    if not fifo.exists():
        os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(stream,))
    writer.start()
    try:
        return here("inspect", str(fifo), *arguments)
    finally:
        writer.join(10)


WAYS = {way.__name__: way for way in (as_file, as_gzip, as_image, as_pipe, as_named_pipe)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


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


def named(document: dict[str, object]) -> list[tuple[object, object]]:
    sections = document["sections"]
    assert isinstance(sections, list)
    return [(section["kind"], section["idstr"]) for section in sections]


@cache
def shown_of_a_file(folder: Path, name: str, size: int) -> list[tuple[object, object]]:
    """What is shown of so many bytes of a capture. Each way in is asked about the same ones."""
    return named(walked(as_file(folder, CAPTURES[name][:size], "--json")))


WHOLE = {name: [(one.kind, one.idstr) for one in inspect_bytes(data).sections] for name, data in CAPTURES.items()}
relaxed = settings(FEWER, suppress_health_check=[HealthCheck.function_scoped_fixture])
DAMAGES = os.environ.get("MIGPOOL_DAMAGES")
each_way = settings(
    relaxed, max_examples=int(DAMAGES or relaxed.max_examples // 2), derandomize=relaxed.derandomize and not DAMAGES
)


@pytest.mark.parametrize("way", WAYS)
@each_way
@given(st.sampled_from(sorted(CAPTURES)), st.floats(0, 1, exclude_max=True))
def test_a_stream_that_was_cut_is_shown_up_to_there(folder: Path, way: str, name: str, where: float) -> None:
    stream = CAPTURES[name]
    cut = stream[: 1 + int(where * (len(stream) - 1))]
    document = walked(WAYS[way](folder, cut, "--json"))
    found = named(document)
    assert found == WHOLE[name][: len(found)]
    assert found == shown_of_a_file(folder, name, len(cut)), "another way in showed another part of it"
    assert document["size"] == len(cut)


damages = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("way", WAYS)
@each_way
@given(st.sampled_from(sorted(CAPTURES)), damages, st.booleans())
def test_a_damaged_stream_is_shown_up_to_there(
    folder: Path, way: str, name: str, changes: list[tuple[float, int]], devices: bool
) -> None:
    stream = bytearray(CAPTURES[name])
    for where, change in changes:
        stream[int(where * len(stream))] ^= change
    if stream.startswith(b"QEVM"):
        walked(WAYS[way](folder, bytes(stream), "--json", *(["--device", "*"] if devices else [])))


@relaxed
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 255))
def test_a_damaged_recording_is_explained_as_far_as_it_goes(
    tmp_path_factory: pytest.TempPathFactory, where: float, value: int
) -> None:
    stream = bytearray(CAPTURES["microvm"])
    at = int(where * len(stream))
    for data in (stream[: at + 1], stream[:at] + bytes((value,)) + stream[at + 1 :]):
        made = recording(tmp_path_factory.mktemp("r") / "r", [Made(Role.MAIN, None, [(1, bytes(data))])], complete=True)
        ended = here("inspect", str(made))
        assert ended.code in (0, 1)
        assert "main channel" in ended.out
        assert "should not have happened" not in ended.err


@pytest.mark.parametrize("how", [gzip.compress, lzma.compress])
@relaxed
@given(st.floats(0, 1, exclude_max=True))
def test_compressed_data_that_were_cut_give_all_that_came_before(
    folder: Path, how: Callable[[bytes], bytes], where: float
) -> None:
    packed = how(CAPTURES["microvm"])
    ended = as_file(folder, packed[: 1 + int(where * (len(packed) - 1))], "--json")
    assert "should not have happened" not in ended.err
    if ended.code == 2:  # nothing comes of so little
        assert "cannot be decompressed" in ended.err
        return
    document = walked(ended)
    if document["header"] is None:
        return  # too little to see that it is compressed
    found = named(document)
    assert found == WHOLE["microvm"][: len(found)]
    assert "cut or damaged near their byte" in str(document["notes"])
