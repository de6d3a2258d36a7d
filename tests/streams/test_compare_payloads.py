"""Configuration spaces and opaque states: what is compared of them, and that no bytes bring the comparison down."""

from __future__ import annotations

import json
from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.streams.compare.payloads import payload_hazards
from migpool.streams.compare.pci import differences, space_of
from migpool.streams.compare.processors import id_registers
from migpool.streams.compare.virtio import read_state
from migpool.streams.inspect.reading import inspect_bytes
from migpool.streams.inspect.summary import KeptSection
from migpool.vmsd.diff import Verdict
from tests.support.other_streams import other

STREAM = inspect_bytes(other("q35-virtio"), lambda *_: True)
assert STREAM.described is not None
DESCRIBED = json.loads(STREAM.described)
BLOBS = [
    kept.payload for kept in STREAM.kept if kept.summary.idstr.startswith("0000:") and "/virtio-" in kept.summary.idstr
]


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


def test_a_real_state_is_read() -> None:
    assert BLOBS
    for blob in BLOBS:
        state = read_state(blob)
        assert state is not None
        assert state.space[:2] == b"\xf4\x1a"
        assert 1 <= state.queues <= 64
        assert list(differences(state.space, state.space)) == []


def test_what_a_guest_may_write_is_no_difference_and_the_rest_is() -> None:
    state = read_state(BLOBS[0])
    assert state is not None
    space = state.space
    for at in (0x04, 0x0C, 0x3C):  # command, cache line, interrupt line
        assert list(differences(space, changed(space, at, space[at] ^ 0x06))) == []
    for at, word in ((0x00, "vendor"), (0x02, "device"), (0x08, "revision"), (0x0A, "class"), (0x34, "capabilities")):
        assert next(differences(space, changed(space, at, space[at] ^ 0x10))).startswith(word)


def test_all_of_a_bridges_own_capability_counts() -> None:
    space = bytearray(256)
    space[0x06], space[0x0E], space[0x34] = 0x10, 0x01, 0x90
    space[0x90:0x98] = bytes.fromhex("0900200100000002")
    for at in (0x93, 0x94, 0xAF):
        [said] = differences(bytes(space), changed(bytes(space), at, space[at] ^ 0x10))
        assert said.startswith("what a bridge reserves")
    assert list(differences(bytes(space), changed(bytes(space), 0xB0, 0x10))) == []


def test_what_is_read_only_in_an_extended_capability_counts_and_the_rest_does_not() -> None:
    space = bytearray(4096)
    space[0x06], space[0x34], space[0x40] = 0x10, 0x40, 0x10
    for at, head in ((0x100, 0x14010003), (0x140, 0x1801000F), (0x180, 0x00010010)):  # serial number, ATS, SR-IOV
        space[at : at + 4] = head.to_bytes(4, "little")
    whole = bytes(space)
    for at, says in ((0x104, "serial"), (0x10B, "serial"), (0x144, "address"), (0x18E, "virtual functions")):
        assert [said.startswith(says) for said in differences(whole, changed(whole, at, 0x21))] == [True]
    for at in (0x146, 0x188, 0x190):  # their controls
        assert list(differences(whole, changed(whole, at, 0x21))) == []


def test_a_stream_is_no_hazard_to_itself() -> None:
    assert list(payload_hazards(STREAM, DESCRIBED, STREAM, DESCRIBED)) == []


FIRST = STREAM.kept[0]


def one_field(kind: str, name: str = "n", size: int = 4) -> dict[str, object]:
    """A description of the first device as a field and nothing else."""
    fields = [{"name": name, "type": kind, "size": size}]
    return {"devices": [{"name": FIRST.summary.idstr, "instance_id": 0, "fields": fields}]}


@pytest.mark.parametrize(
    ("kind", "name", "size", "up", "down"),
    [
        ("uint32 equal", "n", 4, True, True),
        ("int32 le", "n", 4, False, True),
        ("uint8", "spapr/cap/ibs.cap", 1, False, True),
        ("uint32", "n", 4, False, False),
    ],
)
def test_a_value_that_a_destination_compares(kind: str, name: str, size: int, up: bool, down: bool) -> None:
    """From a lower value to a higher one, and back; it is the destination's kind of field that counts."""
    lower, higher = copy(STREAM), copy(STREAM)
    lower.kept, higher.kept = ([KeptSection(FIRST.summary, value.to_bytes(size, "big"))] for value in (2, 3))
    checked, plain = one_field(kind, name, size), one_field("uint32" if size == 4 else kind, name, size)
    for source, destination, refused in ((lower, higher, up), (higher, lower, down)):
        found = list(payload_hazards(source, plain, destination, checked))
        assert [hazard.verdict for hazard in found] == [Verdict.BREAKS] * refused


def test_id_registers_are_those_that_tell_models_apart() -> None:
    names = {
        0x603000000013C000: "MIDR_EL1",
        0x603000000013C005: "MPIDR_EL1",
        0x603000000013C028: "ID_AA64DFR0_EL1",
        0x603000000013D801: "CTR_EL0",
        0x603000000013D000: "CSSELR_EL1",
        0x603000000013C082: "CPACR_EL1",
        0x40200000000F0000: "MIDR",
        0x40200000200F480A: "L2CTLR",
        0x40200000000F0800: "SCTLR",
    }
    found = id_registers(b"".join(index.to_bytes(8, "big") for index in names), bytes(8 * len(names)))
    assert [names[index] for index in found] == [
        "MIDR_EL1",
        "MPIDR_EL1",
        "ID_AA64DFR0_EL1",
        "CTR_EL0",
        "MIDR",
        "L2CTLR",
    ]


@given(st.data())
def test_no_bytes_bring_it_down(data: st.DataObject) -> None:
    blob = data.draw(st.sampled_from(BLOBS))
    for _ in range(data.draw(st.integers(0, 6))):
        blob = changed(blob, data.draw(st.integers(0, len(blob) - 1)), data.draw(st.integers(0, 255)))
    blob = blob[: data.draw(st.integers(0, len(blob)))]
    read_state(blob)
    space = space_of(blob[4:])
    if len(space) >= 256:
        list(differences(space, space))
        list(differences(space, bytes(len(space))))
        list(differences(bytes(len(space)), space))


@given(
    st.dictionaries(st.sampled_from(["size", "array_len"]), st.integers(-1, 1 << 31)),
    st.sampled_from(["virtio", "virtio-gpu", "pci config", "int32 le", "uint32 equal", "struct"]),
)
def test_no_description_makes_it_run_for_ever(numbers: dict[str, int], kind: str) -> None:
    field = {"name": "x", "type": kind, "size": 4, **numbers}
    described = {"devices": [{"name": each.summary.idstr, "instance_id": 0, "fields": [field]} for each in STREAM.kept]}
    list(payload_hazards(STREAM, described, STREAM, described))
