"""Every set of KVM's registers really moves, and what the kernel refuses is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from struct import pack_into, unpack_from

import pytest

from migpool.device import DeviceError
from migpool_plugins.vcpu import program
from migpool_plugins.vcpu.backend import RegisterFormat, VcpuState
from migpool_plugins.vcpu.kvm_machine import KvmMachine
from migpool_plugins.vcpu.kvm_registers import LAYOUT, MSRS

FORMATS: Mapping[str, RegisterFormat] = {entry.name: entry for entry in LAYOUT}
XMM15 = 160 + 15 * 16


@pytest.fixture
def machine(kvm: str) -> Iterator[KvmMachine]:
    with closing(KvmMachine(1)) as made:
        assert made.name == kvm.upper()
        made.vcpus[0].boot(program.start_registers(seed=1, index=0, batch=100, way_out=made.way_out))
        made.vcpus[0].run_batch()
        yield made


@pytest.fixture
def empty(kvm: str) -> Iterator[KvmMachine]:
    with closing(KvmMachine(1)) as made:
        assert made.name == kvm.upper()
        yield made


def with_value(state: VcpuState, name: str, field: str, value: int) -> VcpuState:
    form = FORMATS[name]
    values = list(form.struct.unpack(state.registers[name]))
    values[form.fields.index(field)] = value
    return VcpuState({**state.registers, name: form.struct.pack(*values)}, state.page)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("regs", "r15", 0x0123456789ABCDEF),
        ("sregs", "fs_base", 0x00007FFF12345678),
        ("sregs", "gs_base", 0x00007FFF87654321),
        ("sregs", "cr2", 0x0000123456789000),
        ("msrs", "kernel_gs_base", 0x00007F1122334455),
        ("msrs", "lstar", 0x00007F5544332211),
        ("msrs", "star", 0x0023001000000000),
        ("debugregs", "db0", 0x00007F0000001000),
    ],
)
def test_a_register_is_loaded_into_another_machine(
    machine: KvmMachine, empty: KvmMachine, name: str, field: str, value: int
) -> None:
    state = with_value(machine.vcpus[0].save(), name, field, value)
    empty.vcpus[0].load(state)
    found = empty.vcpus[0].save()
    form = FORMATS[name]
    assert form.struct.unpack(found.registers[name])[form.fields.index(field)] == value
    assert empty.comparable(found) == machine.comparable(state)


def test_sse_registers_are_loaded_into_another_machine(machine: KvmMachine, empty: KvmMachine) -> None:
    state = machine.vcpus[0].save()
    area = bytearray(state.registers["xsave"])
    pack_into("<2Q", area, XMM15, 0x1111222233334444, 0x5555666677778888)
    empty.vcpus[0].load(VcpuState({**state.registers, "xsave": bytes(area)}, state.page))
    found = empty.vcpus[0].save().registers["xsave"]
    assert unpack_from("<2Q", found, XMM15) == (0x1111222233334444, 0x5555666677778888)


def test_the_time_stamp_counter_does_not_go_back(machine: KvmMachine, empty: KvmMachine) -> None:
    state = machine.vcpus[0].save()
    empty.vcpus[0].load(state)
    form = FORMATS["msrs"]
    place = form.fields.index("tsc")
    before, after = (
        form.struct.unpack(registers["msrs"])[place] for registers in (state.registers, empty.vcpus[0].save().registers)
    )
    assert after > before


def test_all_registers_are_read(machine: KvmMachine) -> None:
    registers = machine.vcpus[0].save().registers
    assert registers.keys() == FORMATS.keys()
    assert all(len(registers[name]) == form.struct.size for name, form in FORMATS.items())
    values = FORMATS["msrs"].struct.unpack(registers["msrs"])
    assert values[0] == len(MSRS)


def test_a_value_that_the_kernel_refuses_is_named(machine: KvmMachine, empty: KvmMachine) -> None:
    # Paging without protection: no processor allows it.
    state = with_value(machine.vcpus[0].save(), "sregs", "cr0", 1 << 31)
    with pytest.raises(DeviceError, match=r"^KVM_SET_SREGS failed with EINVAL: "):
        empty.vcpus[0].load(state)


def test_an_msr_that_the_kernel_refuses_is_named(machine: KvmMachine, empty: KvmMachine) -> None:
    state = with_value(machine.vcpus[0].save(), "msrs", "lstar_index", 0xDEADBEEF)
    with pytest.raises(DeviceError, match=r"^KVM_SET_MSRS took only part of the set"):
        empty.vcpus[0].load(state)
