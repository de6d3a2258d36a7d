"""Unicorn's registers stand in the same sets as KVM's: the x87 stack as FXSAVE has it, what is missing as 0."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing

import pytest

from migpool.device import DeviceContext, DeviceError
from migpool_plugins.vcpu import devices
from migpool_plugins.vcpu.backend import VcpuMachine
from migpool_plugins.vcpu.state import FPU, SREGS, Sets

TOP_AT_5 = 5 << 11


@pytest.fixture
def pair(unicorn: str) -> Iterator[tuple[VcpuMachine, VcpuMachine]]:
    module = importlib.import_module(f"migpool_plugins.vcpu.{unicorn}_machine")
    with closing(module.UnicornMachine(1)) as first, closing(module.UnicornMachine(1)) as second:
        yield first, second


def with_fpu(state: Sets, **values: int) -> Sets:
    fpu = FPU.struct.pack(*{**FPU.values(state["fpu"]), **values}.values())
    return {**state, "fpu": fpu}


def test_the_x87_stack_is_named_from_its_top(pair: tuple[VcpuMachine, VcpuMachine]) -> None:
    x86 = importlib.import_module("unicorn.x86_const")
    first = pair[0].vcpus[0]
    stack = {f"st{n}_mantissa": 0x8000000000000000 + n for n in range(8)}
    exponents = {f"st{n}_exponent": 0x3FFF + n for n in range(8)}
    # The tags are those of the registers as they lie: the three from the top on are in use.
    state = with_fpu(first.save(), fsw=TOP_AT_5, ftw=0b11100000, **stack, **exponents)
    assert list(first.load(state)) == []
    engine = vars(first)["_engine"]
    assert engine.reg_read(x86.UC_X86_REG_FP5) == (0x8000000000000000, 0x3FFF)
    assert engine.reg_read(x86.UC_X86_REG_FP7) == (0x8000000000000002, 0x4001)
    found = FPU.values(first.save()["fpu"])
    assert found == FPU.values(state["fpu"])


def test_all_that_unicorn_has_is_loaded_into_another_machine(pair: tuple[VcpuMachine, VcpuMachine]) -> None:
    first, second = (machine.vcpus[0] for machine in pair)
    state = with_fpu(first.save(), fcw=0x27F, mxcsr=0x1FA0, xmm0_low=1, xmm15_high=2**64 - 1)
    special = SREGS.struct.pack(*{**dict.fromkeys(SREGS.fields, 0), "fs_base": 0x1234, "gs_base": 0x5678}.values())
    state = {**state, "sregs": special, "page": bytes(range(256)) * 16}
    assert list(second.load(state)) == []
    assert second.save() == state


def test_nothing_optional_is_there(pair: tuple[VcpuMachine, VcpuMachine]) -> None:
    machine = pair[0]
    registers = machine.vcpus[0].save()
    assert registers.keys() == {"regs", "sregs", "fpu", "page"} == machine.vcpus[0].blank.keys()
    assert {name: len(data) for name, data in registers.items()} == {
        name: len(data) for name, data in machine.vcpus[0].blank.items()
    }
    assert (list(machine.board.layout), dict(machine.board.save()), list(machine.board.load({}))) == ([], {}, [])


def test_only_kvm_has_the_cpu_with_avx(unicorn: str) -> None:
    with pytest.raises(DeviceError, match=r'^Unicorn has no CPU "avx": use KVM, or set cpu = "small"$'):
        devices(DeviceContext("source", {"backend": unicorn, "cpu": "avx"}))
