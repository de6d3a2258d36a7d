"""KVM machines and their states for tests: values taken out of a state by name, and put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from migpool.device import DeviceError
from migpool_plugins.ioctl import Request
from migpool_plugins.vcpu import kvm_abi, program
from migpool_plugins.vcpu.cpu_model import CpuChoice
from migpool_plugins.vcpu.kvm_machine import KvmMachine
from migpool_plugins.vcpu.kvm_msrs import MSRS
from migpool_plugins.vcpu.state import RegisterFormat, Sets

Refusals = Mapping[str, str]
"""What a made-up kernel does not have: names of ioctls, each with the errno's name."""


def form_of(machine: KvmMachine, name: str) -> RegisterFormat:
    return next(form for form in (*machine.vcpus[0].layout, *machine.board.layout) if form.name == name)


def value_of(machine: KvmMachine, registers: Mapping[str, bytes], name: str, field: str) -> int:
    return form_of(machine, name).values(registers[name])[field]


def changed(machine: KvmMachine, state: Sets, name: str, **values: int) -> dict[str, bytes]:
    """The state with other values in one of its sets."""
    form = form_of(machine, name)
    data = form.struct.pack(*{**form.values(state[name]), **values}.values())
    return {**state, name: data}


def msrs_of(registers: Mapping[str, bytes]) -> dict[int, int]:
    return dict(MSRS.struct.iter_unpack(registers["msrs"]))


def with_msrs(state: Sets, values: Mapping[int, int]) -> dict[str, bytes]:
    entries = {**msrs_of(state), **values}
    data = b"".join(MSRS.struct.pack(*entry) for entry in entries.items())
    return {**state, "msrs": data}


def boot(machine: KvmMachine, **registers: int) -> None:
    for vcpu in machine.vcpus:
        begin = program.start_registers(seed=1, index=vcpu.index, batch=100, way_out=machine.way_out)
        vcpu.boot({**begin, **registers})


@contextmanager
def machines(count: int = 1, cpu: CpuChoice = "small") -> Iterator[tuple[KvmMachine, KvmMachine]]:
    """One machine whose vCPUs have run a batch, and one without state."""
    first = KvmMachine(count, cpu=cpu)
    try:
        second = KvmMachine(count, cpu=cpu)
        try:
            boot(first)
            for vcpu in first.vcpus:
                vcpu.run_batch()
            yield first, second
        finally:
            second.close()
    finally:
        first.close()


def kernel_without(
    monkeypatch: pytest.MonkeyPatch, capabilities: Mapping[str, int] | None = None, refused: Refusals | None = None
) -> None:
    """From now on the kernel says other values for some capabilities, and refuses some ioctls."""
    real: Callable[..., int] = kvm_abi.call
    answers = {kvm_abi.CAPABILITIES[name]: value for name, value in (capabilities or {}).items()}
    refusals = refused or {}

    def call(fd: int, request: Request, argument: int | bytearray = 0) -> int:
        if request.name in refusals:
            raise DeviceError(f"{request.name} failed with {refusals[request.name]}: refused by the test")
        if request == kvm_abi.CHECK_EXTENSION and isinstance(argument, int) and argument in answers:
            return answers[argument]
        return real(fd, request, argument)

    monkeypatch.setattr(kvm_abi, "call", call)
