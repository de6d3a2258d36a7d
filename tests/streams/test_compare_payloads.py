"""Configuration spaces and opaque states: what is compared of them, and that no bytes bring the comparison down."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from migpool.streams.compare.payloads import payload_hazards
from migpool.streams.compare.pci import differences, space_of
from migpool.streams.compare.processors import id_registers
from migpool.streams.compare.virtio import read_state
from migpool.streams.inspect.reading import inspect_bytes
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


def test_a_stream_is_no_hazard_to_itself() -> None:
    assert list(payload_hazards(STREAM, DESCRIBED, STREAM, DESCRIBED)) == []


def test_a_value_that_must_be_equal() -> None:
    fields = [{"name": "n", "type": "uint32 equal", "size": 4}]
    described = {"devices": [{"name": STREAM.kept[0].summary.idstr, "instance_id": 0, "fields": fields}]}
    other_stream = inspect_bytes(other("q35-virtio"), lambda *_: True)
    first = STREAM.kept[0]
    other_stream.kept[0] = type(first)(first.summary, changed(first.payload, 3, first.payload[3] ^ 1))
    (hazard,) = payload_hazards(STREAM, described, other_stream, described)
    assert hazard.verdict is Verdict.BREAKS
    assert "takes only its own" in hazard.reason


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
    found = id_registers([index.to_bytes(8, "big") for index in names], [bytes(7) + b"\x01"] * len(names))
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
