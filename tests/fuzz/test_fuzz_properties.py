"""Changed, spliced and hand-made inputs: only documented errors, and no more memory than an input may cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migpool.wire.configuration import Configuration, configuration
from migpool.wire.stream import header, vm_description
from tests.fuzz.fuzz_blind import fuzz_blindly
from tests.fuzz.fuzz_budget import SPARE, CostsTooMuch, memory_within
from tests.fuzz.fuzz_seeds import SEEDS
from tests.fuzz.fuzz_targets import TARGETS
from tests.support import LONG
from tests.support.thinned import FEWER
from tests.support.wire_bytes import section_full

PROLOGUE = header() + configuration(Configuration("q"))
LARGEST = 70_000
LIMIT = 120.0


@cache
def seeds_of(name: str) -> list[bytes]:
    return [seed for seed in SEEDS[name]() if len(seed) <= LARGEST]


@st.composite
def changed(draw: st.DrawFn, name: str) -> bytes:
    """A seed with some of its bytes changed, removed, doubled, or replaced by a part of another seed."""
    seeds = seeds_of(name)
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(data)))
        end = at + draw(st.sampled_from([1, 2, 4, 9, 40, 5000]))
        match draw(st.integers(0, 4)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at : at + 4] = draw(st.sampled_from([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\1\0\0"]))
            case _:
                other = draw(st.sampled_from(seeds))
                data[at:end] = other[at : at + draw(st.integers(0, 200))]
    return bytes(data)


@pytest.mark.parametrize("name", list(TARGETS))
@settings(FEWER, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_changed_input_is_understood_or_raises_a_documented_error(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(st.one_of(changed(name), changed(name), st.binary(max_size=300))))


@pytest.mark.parametrize("name", list(TARGETS))
def test_every_seed_passes(name: str) -> None:
    seeds = seeds_of(name)
    assert len(seeds) >= 2
    for seed in seeds:
        TARGETS[name](seed)


def test_what_fails_is_kept_and_the_same_changes_are_made_again(tmp_path: Path) -> None:
    seeds, tried = [bytes(8), bytes(range(200))], [0, 0]

    def fails(data: bytes) -> None:
        assert len(data) < 230

    def keep(data: bytes) -> Path:
        kept.append(data)
        return tmp_path / "kept"

    kept: list[bytes] = []
    for place in range(2):

        def count(at: int = place) -> Iterator[None]:
            while True:
                tried[at] += 1
                yield

        with pytest.raises(AssertionError) as caught:
            fuzz_blindly(fails, seeds, 7, 1_000_000, LIMIT, count(), keep)
        assert str(tmp_path / "kept") in caught.value.__notes__[0]
    assert len(set(kept)) == 1
    assert tried[0] == tried[1] > 1
    assert fuzz_blindly(lambda _: None, seeds, 0, 25, LIMIT, itertools.repeat(None), keep) == 25


def nested(depth: int) -> bytes:
    head = b'"vmsd_name": "d", "version": 1, "fields": ['
    inside = b'{"name": "f", "type": "struct", "size": 0, "struct": {' + head
    return b'{"name": "d", "instance_id": 0, ' + head + inside * depth + b"]}}" * depth + b"]}"


GIANTS = (
    b'{"page_size": 4096, "devices": [{"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1, '
    b'"fields": [{"name": "f", "type": "buffer", "size": 4294967295, "array_len": 4294967295}]}]}'
)
SECTIONS, ROOM = (4000, SPARE) if LONG else (500, SPARE // 8)
"""How many sections an input has that looks costly, and what it may cost."""


def sections(payload: bytes) -> bytes:
    """Many sections that no description tells of."""
    parts = (part for number in range(SECTIONS) for part in section_full(number, "d", payload, instance_id=number))
    return b"".join([PROLOGUE, *parts])


COSTLY = {
    "footers alone": ("inspection", PROLOGUE + b"\x04\0\0\0\1\1d" + bytes(8) + b"\x7e\0\0\0\1" * 15_000),
    "many undescribed sections": ("inspection", sections(b"ab")),
    "many empty sections": ("inspection", sections(b"")),
    "a description of giant fields": (
        "inspection",
        b"".join([PROLOGUE, *section_full(1, "d", b"ab"), b"\0", *vm_description(GIANTS + b" " * 70_000)]),
    ),
    "elements of no size": (
        "structures",
        b'{"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1, "fields": [{"name": "f", "type": "buffer", '
        b'"size": 0, "array_len": 4294967295}]}\0' + bytes(70_000),
    ),
    "a deep description": ("structures", nested(700) + b"\0" + bytes(70_000)),
    "brackets": ("description", b"[" * 70_000),
    "braces": ("layouts", b'{"a":' * 20_000),
    "digits": ("description", b'{"page_size": ' + b"9" * 70_000 + b', "devices": []}'),
    "a page a byte": ("stream", PROLOGUE + bytes(70_000)),
    "marks": ("stream", PROLOGUE + b"\x01\0\0\0\1\1r" + bytes(8) + bytes.fromhex("ffffffffef100003") * 9000),
    "sixes": ("captures", b"QEVM" + b"\x06" * 100_000),
    "zeros": ("channel", bytes.fromhex("11223344 00000001") + bytes(100_000)),
}  # fmt: skip


@pytest.mark.parametrize("what", list(COSTLY))
def test_a_costly_input_costs_no_more_memory_than_it_may(what: str) -> None:
    name, data = COSTLY[what]
    memory_within(TARGETS[name], data, ROOM)


def test_the_budget_notices_what_goes_over_it() -> None:
    def wasteful(data: bytes) -> None:
        assert len(bytes(SPARE + len(data) + 1)) > SPARE

    with pytest.raises(CostsTooMuch, match="bytes were allocated for an input of 3"):
        memory_within(wasteful, b"abc")
