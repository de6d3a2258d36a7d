"""A config says what it is; a destination refuses what it cannot load, in one line, before the machine is stopped."""

from __future__ import annotations

from struct import pack

import pytest

from migpool.device import DeviceError
from migpool_plugins.vcpu.backend import VcpuState
from migpool_plugins.vcpu.kvm_registers import LAYOUT
from migpool_plugins.vcpu.state import StateFormat
from migpool_plugins.vmsd import Description
from migpool_plugins.vmsd.jsonform import section_structure

HEADER = 32


def some_state() -> VcpuState:
    """A state in which every named value differs from its neighbours."""
    registers = {
        entry.name: entry.struct.pack(
            *(
                bytes(range(256)) * 16 if isinstance(value, bytes) else number % 251 + 1
                for number, value in enumerate(entry.struct.unpack(bytes(entry.struct.size)))
            )
        )
        for entry in LAYOUT
    }
    return VcpuState(registers, bytes(reversed(range(256))) * 16)


@pytest.fixture
def kvm_format() -> StateFormat:
    return StateFormat("KVM", LAYOUT)


def test_a_state_comes_back_as_it_was(kvm_format: StateFormat) -> None:
    state = some_state()
    assert kvm_format.decode(1, kvm_format.encode(1, state)) == state


def test_a_config_begins_with_its_header(kvm_format: StateFormat) -> None:
    assert kvm_format.encode(1, some_state())[:HEADER] == kvm_format.header(1)


def test_a_config_measures_itself_as_soon_as_its_header_has_come(kvm_format: StateFormat) -> None:
    config = kvm_format.encode(1, some_state())
    assert kvm_format.measure(1, memoryview(config)[: HEADER - 1]) is None
    assert kvm_format.measure(1, memoryview(config)[:HEADER]) == len(config)
    assert kvm_format.measure(1, memoryview(config + b"more")) == len(config)


def test_the_description_names_every_register_and_covers_every_byte(kvm_format: StateFormat) -> None:
    description = kvm_format.describe(0, some_state())
    fields = description["fields"]
    assert isinstance(fields, list)
    assert sum(field["size"] for field in fields) == len(kvm_format.encode(0, some_state()))
    regs = next(field["struct"]["fields"] for field in fields if field["name"] == "regs")
    assert [(field["name"], field["type"], field["size"]) for field in regs[:2]] == [
        ("rax", "uint64", 8),
        ("rbx", "uint64", 8),
    ]


def test_a_reader_who_has_only_the_stream_finds_every_register_by_name(kvm_format: StateFormat) -> None:
    state = some_state()
    section = {"name": "vcpu", "instance_id": 0, **kvm_format.describe(0, state)}
    reader = Description.from_structure(section_structure(section, 1))
    found: dict[str, object] = {}
    reader.load(found, kvm_format.encode(0, state))
    for entry in LAYOUT:
        values = entry.struct.unpack(state.registers[entry.name])
        assert found[entry.name] == dict(zip(entry.fields, values, strict=True))
    assert found["page"] == state.page


def test_numbers_are_big_endian_in_the_config(kvm_format: StateFormat) -> None:
    state = some_state()
    marked = {**state.registers, "mp_state": pack("<I", 0x01020304)}
    assert bytes.fromhex("01020304") in kvm_format.encode(0, VcpuState(marked, state.page))


def test_a_state_of_another_backend_is_refused(kvm_format: StateFormat) -> None:
    with pytest.raises(DeviceError) as refused:
        kvm_format.check_header(0, StateFormat("Unicorn", LAYOUT[:1]).header(0))
    assert str(refused.value) == (
        "the state is one of Unicorn, this vCPU is one of KVM: "
        'set backend = "unicorn" at the destination, or the same backend at both ends'
    )


def test_a_state_of_another_vcpu_is_refused(kvm_format: StateFormat) -> None:
    with pytest.raises(DeviceError, match=r"^the state is that of vCPU 2, this is vCPU 1$"):
        kvm_format.decode(1, kvm_format.encode(2, some_state()))


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (0, "this is no vCPU state: the header is missing or damaged"),
        (5, "the state has layout 0, this vCPU loads 1: use the same version"),
        (16, "the source runs another guest program: use the same version at both ends"),
    ],
)
def test_a_damaged_header_is_refused(kvm_format: StateFormat, offset: int, message: str) -> None:
    config = bytearray(kvm_format.encode(1, some_state()))
    config[offset] ^= 1
    with pytest.raises(DeviceError) as refused:
        kvm_format.measure(1, memoryview(config))
    assert str(refused.value) == message


@pytest.mark.parametrize("length", [0, HEADER - 1, HEADER, HEADER + 1, 5000, -1])
def test_a_config_that_is_cut_off_is_refused(kvm_format: StateFormat, length: int) -> None:
    with pytest.raises(DeviceError):
        kvm_format.decode(1, kvm_format.encode(1, some_state())[:length])


def test_a_config_that_is_too_long_is_refused(kvm_format: StateFormat) -> None:
    with pytest.raises(DeviceError, match="1 bytes follow"):
        kvm_format.decode(1, kvm_format.encode(1, some_state()) + b"\0")
