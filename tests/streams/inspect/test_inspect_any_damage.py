"""Cut or damaged anywhere, on every way in: shown as far as it goes, with one line about why, by the command itself.

Thousands of inputs of every capture: ``many_damages.py``.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migpool.streams.record.index import Role
from tests.support.damaged_streams import WAYS, as_file, by_command, check_cut, named, names_within, walked
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@cache
def shown_of_a_file(folder: Path, name: str, size: int) -> list[tuple[object, object]]:
    """What is shown of so many bytes of a capture. Each way in is asked about the same ones."""
    return named(walked(as_file(by_command, folder, CAPTURES[name][:size], "--json")))


WHOLE = {name: names_within(data) for name, data in CAPTURES.items()}
relaxed = settings(FEWER, suppress_health_check=[HealthCheck.function_scoped_fixture])
each_way = settings(relaxed, max_examples=relaxed.max_examples // 2)


@pytest.mark.parametrize("way", WAYS)
@each_way
@given(st.sampled_from(sorted(CAPTURES)), st.floats(0, 1, exclude_max=True))
def test_a_stream_that_was_cut_is_shown_up_to_there(folder: Path, way: str, name: str, where: float) -> None:
    stream = CAPTURES[name]
    size = 1 + int(where * (len(stream) - 1))
    found = named(check_cut(by_command, folder, way, stream, WHOLE[name], size))
    assert found == shown_of_a_file(folder, name, size), "another way in showed another part of it"


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
        walked(WAYS[way](by_command, folder, bytes(stream), "--json", *(["--device", "*"] if devices else [])))


@relaxed
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 255))
def test_a_damaged_recording_is_explained_as_far_as_it_goes(
    tmp_path_factory: pytest.TempPathFactory, where: float, value: int
) -> None:
    stream = bytearray(CAPTURES["microvm"])
    at = int(where * len(stream))
    for data in (stream[: at + 1], stream[:at] + bytes((value,)) + stream[at + 1 :]):
        made = recording(tmp_path_factory.mktemp("r") / "r", [Made(Role.MAIN, None, [(1, bytes(data))])], complete=True)
        ended = by_command(str(made))
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
    ended = as_file(by_command, folder, packed[: 1 + int(where * (len(packed) - 1))], "--json")
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
