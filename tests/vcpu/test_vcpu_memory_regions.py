"""A KVM machine takes guest memory from outside: the guest writes there, and the kernel can note where."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import closing
from dataclasses import replace

import pytest

from migpool.device import DeviceError
from migpool_plugins.ioctl import Request
from migpool_plugins.vcpu import kvm_abi, program
from migpool_plugins.vcpu.kvm_machine import OWN_MEMORY, KvmMachine, MemoryRegion

PAGES = 16
GET_DIRTY_LOG = Request("KVM_GET_DIRTY_LOG", 1 << 30 | 16 << 16 | 0xAE42)


def region_of(memory: mmap.mmap, flags: int = 0) -> MemoryRegion:
    return MemoryRegion(ctypes.addressof(ctypes.c_char.from_buffer(memory)), OWN_MEMORY, len(memory), flags)


def dirty_pages(machine: KvmMachine, slot: int) -> set[int]:
    bitmap = ctypes.create_string_buffer(8)
    question = slot.to_bytes(8, "little") + ctypes.addressof(bitmap).to_bytes(8, "little")
    kvm_abi.call(machine.fd, GET_DIRTY_LOG, bytearray(question))
    word = int.from_bytes(bitmap.raw[:8], "little")
    return {page for page in range(64) if word >> page & 1}


def run_in(machine: KvmMachine, page: int) -> None:
    """Let the guest compute into a page of the region instead of its own."""
    registers = program.start_registers(seed=1, index=0, batch=512, way_out=machine.way_out)
    machine.vcpus[0].boot({**registers, "rdi": OWN_MEMORY + page * program.PAGE_SIZE})
    machine.vcpus[0].run_batch()


def test_the_guest_writes_into_memory_given_from_outside(kvm: str) -> None:
    with closing(mmap.mmap(-1, PAGES * program.PAGE_SIZE)) as memory:
        with closing(KvmMachine(1, [region_of(memory)])) as machine:
            assert machine.name == kvm.upper()
            run_in(machine, 5)
        written = [page for page in range(PAGES) if any(memory[page * 4096 : (page + 1) * 4096])]
        assert written == [5]


def test_the_kernel_notes_the_pages_that_the_guest_writes(kvm: str) -> None:
    with (
        closing(mmap.mmap(-1, PAGES * program.PAGE_SIZE)) as memory,
        closing(KvmMachine(1, [region_of(memory, kvm_abi.MEM_LOG_DIRTY_PAGES)])) as machine,
    ):
        assert machine.name == kvm.upper()
        run_in(machine, 3)
        run_in(machine, 7)
        assert dirty_pages(machine, 1) == {3, 7}
        assert dirty_pages(machine, 1) == set()


def test_logging_can_begin_later(kvm: str) -> None:
    with (
        closing(mmap.mmap(-1, PAGES * program.PAGE_SIZE)) as memory,
        closing(KvmMachine(1, [region_of(memory)])) as machine,
    ):
        assert machine.name == kvm.upper()
        run_in(machine, 1)
        machine.attach(1, replace(region_of(memory), flags=kvm_abi.MEM_LOG_DIRTY_PAGES))
        run_in(machine, 2)
        assert dirty_pages(machine, 1) == {2}


def test_a_region_in_the_machines_own_memory_is_refused(kvm: str) -> None:
    with closing(mmap.mmap(-1, program.PAGE_SIZE)) as memory, pytest.raises(DeviceError) as refused:
        KvmMachine(1, [replace(region_of(memory), guest_address=0x100000)])
    assert kvm
    assert str(refused.value) == "guest memory at 0x100000 lies in the machine's own 2 MiB"
