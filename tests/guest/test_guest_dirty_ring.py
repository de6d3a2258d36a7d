"""KVM's dirty rings as the log of a guest: they name every page, also when they overflow, and a guest moves so."""

from __future__ import annotations

import collections
import ctypes
import mmap
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import migpool_plugins.guest
from migpool.core.machine import Machine
from migpool.device import Device, DeviceError, MemoryDevice
from migpool.migration.states import State
from migpool_plugins.ioctl import Request
from migpool_plugins.ram.logs import KvmDirtyRing
from migpool_plugins.vcpu import kvm_abi, program
from migpool_plugins.vcpu.kvm_machine import OWN_MEMORY, KvmMachine, MemoryRegion
from tests.support import LONG
from tests.support.guest_cancelling import Cancelling, migrate, runs
from tests.support.guests import group_of, guest, need, steps
from tests.support.rig import Pair

SIZES = (4096, 8192, 16384, 32768)
PAGES = 16


def smallest_ring() -> int:
    """The smallest ring that this host makes, in bytes; skips the test where there is none."""
    need("kvm")
    reason = ""
    for size in SIZES:
        try:
            KvmMachine(1, ring=size).close()
        except DeviceError as error:
            reason = str(error)
        else:
            return size
    pytest.skip(reason)


def pages(answer: bytes | bytearray | memoryview) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(np.frombuffer(answer, dtype=np.uint8), bitorder="little")).tolist())


def memory_of(made: list[Device]) -> MemoryDevice:
    memory = made[0]
    assert isinstance(memory, MemoryDevice)
    return memory


@contextmanager
def one_vcpu() -> Iterator[tuple[KvmMachine, KvmDirtyRing]]:
    """A machine of one vCPU and the log of its memory, which has begun."""
    size = smallest_ring()
    with closing(mmap.mmap(-1, PAGES * program.PAGE_SIZE)) as memory:
        region = MemoryRegion(ctypes.addressof(ctypes.c_char.from_buffer(memory)), OWN_MEMORY, len(memory))
        with closing(KvmMachine(1, [region], ring=size)) as machine:
            log = KvmDirtyRing(machine, 1, region)
            log.start()
            yield machine, log


def write(machine: KvmMachine, page: int) -> None:
    registers = program.start_registers(seed=1, index=0, batch=512, way_out=machine.way_out)
    machine.vcpus[0].boot({**registers, "rdi": OWN_MEMORY + page * program.PAGE_SIZE})
    machine.vcpus[0].run_batch()


def host_with_rings_of(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """From now on the kernel says that its rings have at most so many bytes."""
    real = kvm_abi.call

    def call(fd: int, request: Request, argument: int | bytearray = 0) -> int:
        asked = request == kvm_abi.CHECK_EXTENSION and argument == kvm_abi.CAPABILITIES["KVM_CAP_DIRTY_LOG_RING"]
        return most if asked else real(fd, request, argument)

    monkeypatch.setattr(kvm_abi, "call", call)


@contextmanager
def small_rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Guests have the smallest rings there are; yields a list that grows with each time that one is full."""
    monkeypatch.setattr(migpool_plugins.guest, "RING_SIZE", smallest_ring())
    full: list[int] = []

    class Counted(KvmDirtyRing):
        def __init__(self, machine: KvmMachine, slot: int, region: MemoryRegion) -> None:
            super().__init__(machine, slot, region)
            for vcpu in machine.vcpus:
                vcpu.empty_ring = partial(self.counted, vcpu.empty_ring)

        def counted(self, empty: Callable[[], None]) -> None:
            full.append(1)
            empty()

    monkeypatch.setattr(migpool_plugins.guest, "KvmDirtyRing", Counted)
    yield full


def test_it_names_the_pages_that_are_written_and_no_others() -> None:
    with one_vcpu() as (machine, log):
        assert pages(log.take()) == set()
        write(machine, 3)
        write(machine, 7)
        assert pages(log.take()) == {3, 7}
        assert pages(log.take()) == set()
        write(machine, 7)  # protected again
        assert pages(log.take()) == {7}
        log.stop()
        write(machine, 5)
        log.stop()
        with pytest.raises(DeviceError, match="its dirty log has not been started"):
            log.take()
        log.start()
        assert pages(log.take()) == set()
        write(machine, 5)
        assert pages(log.take()) == {5}


def test_a_copy_that_follows_the_log_of_a_running_guest_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a migration does: after each answer copy the pages that it names, while the vCPUs go on writing."""
    with small_rings(monkeypatch) as full, guest("source", "kvm", rate=0, dirty_log="ring") as made:
        ram, group = memory_of(made), group_of(made)
        memory = np.frombuffer(group.memory.view, dtype=np.uint8).reshape(-1, 4096)
        ram.start_dirty_log()
        copy = memory.copy()
        rounds = 0
        while rounds < (20 if LONG else 4) or len(full) < (50 if LONG else 10):
            for _ in range(4):
                named = sorted(pages(ram.take_dirty(0)))
                copy[named] = memory[named]
            # Looked at in every round: a page that was lost is soon written again, and then named.
            with group.paused():
                named = sorted(pages(ram.take_dirty(0)))
                copy[named] = memory[named]
                assert np.array_equal(copy, memory)
                assert pages(ram.take_dirty(0)) == set()
            rounds += 1
        ram.stop_dirty_log()
        for device in made:
            device.verify()
        del memory


def test_rings_that_overflow_name_every_page_in_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with small_rings(monkeypatch) as full, guest("source", "kvm", rate=0, dirty_log="ring") as made:
        ram, group = memory_of(made), group_of(made)
        with group.paused():
            before = steps(made)
            ram.start_dirty_log()
        for thread in group.threads:
            thread.wait_batches(2, 30)
        with group.paused():
            named = pages(ram.take_dirty(0))
            written = set()
            for index, (first, after) in enumerate(zip(before, steps(made), strict=True)):
                pattern, begin = group.layout.pattern(index), group.layout.region(index).start // 4096
                last = pattern.last_written(after)
                written |= {begin + int(page) for page in np.flatnonzero(last >= first)}
        assert len(full) > 4
        assert len(written) > 1000
        assert written <= named


def test_a_reset_that_is_cut_short_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kvm_abi.call

    def short(fd: int, request: Request, argument: int | bytearray = 0) -> int:
        if request == kvm_abi.RESET_DIRTY_RINGS and not cut:
            cut.append(1)
            return 0
        return real(fd, request, argument)

    with one_vcpu() as (machine, log):
        cut: list[int] = []
        write(machine, 3)
        monkeypatch.setattr(kvm_abi, "call", short)
        assert pages(log.take()) == set(range(PAGES))  # nobody knows which of them are protected
        write(machine, 3)
        assert pages(log.take()) == {3}


def test_nothing_comes_between_the_reading_and_the_protecting_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another answer, which could name the page too soon, nor a signal, which makes the kernel forget it."""
    real = kvm_abi.call
    seen: list[tuple[bool, bool]] = []

    answered = threading.Event()
    others: list[threading.Thread] = []

    def answer() -> None:
        machine.vcpus[0].empty_ring()
        answered.set()

    def watched(fd: int, request: Request, argument: int | bytearray = 0) -> int:
        if request == kvm_abi.RESET_DIRTY_RINGS and threading.current_thread() not in others:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            answered.clear()
            others.append(threading.Thread(target=answer))
            others[-1].start()
            seen.append((not answered.wait(0.05), {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD} <= blocked))
        return real(fd, request, argument)

    monkeypatch.setattr(kvm_abi, "call", watched)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with one_vcpu() as (machine, log):
        for empty in (log.take, machine.vcpus[0].empty_ring, log.stop):
            write(machine, 3)
            empty()
            others[-1].join()
    assert seen == [(True, True)] * 3
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_kernel_that_resets_nothing_is_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kvm_abi.call

    def idle(fd: int, request: Request, argument: int | bytearray = 0) -> int:
        return 0 if request == kvm_abi.RESET_DIRTY_RINGS else real(fd, request, argument)

    with one_vcpu() as (machine, log):
        write(machine, 3)
        with monkeypatch.context() as patched:
            patched.setattr(kvm_abi, "call", idle)
            with pytest.raises(DeviceError, match=r"^KVM has taken back 0 of 1 entries of its dirty rings$"):
                log.take()


def test_a_guest_moves_by_its_rings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with ExitStack() as ends:
        full = ends.enter_context(small_rings(monkeypatch))
        here = ends.enter_context(guest("source", "kvm", dirty_log="ring", rate=0, pattern="sequential"))
        there = ends.enter_context(guest("destination", "kvm", dirty_log="ring", rate=0, pattern="sequential"))
        assert here[0].note == there[0].note == "KVM dirty ring"
        pair = Pair(here, there)
        pair.settings = replace(pair.settings, downtime_limit=10.0)
        sent, received = pair.run(tmp_path)
        assert (sent.error, received.error) == ("", "")
        assert received.outcome is State.COMPLETED
        assert full


def test_a_guest_that_came_by_rings_goes_on_by_a_bitmap(tmp_path: Path) -> None:
    smallest_ring()
    with (
        guest("source", "kvm", dirty_log="bitmap") as first,
        guest("destination", "kvm", dirty_log="ring") as second,
        guest("destination", "kvm") as third,
    ):
        assert [made[0].note for made in (first, second, third)] == [
            "KVM dirty bitmap",
            "KVM dirty ring",
            "KVM dirty bitmap",
        ]
        for number, (here, there) in enumerate([(first, second), (second, third)]):
            folder = tmp_path / str(number)
            folder.mkdir()
            sent, received = Pair(here, there).run(folder)
            assert (sent.error, received.error) == ("", "")


def test_a_cancel_at_any_wait_leaves_it_running(tmp_path: Path) -> None:
    smallest_ring()
    numbers = random.Random(5)
    outcomes = []
    usual = 0
    for turn in range(6 if LONG else 4):
        with guest("source", "kvm", dirty_log="ring") as here, guest("destination", "kvm", dirty_log="ring") as there:
            before = steps(here)
            tracer = Cancelling(numbers.randint(1, usual) if usual else 0)
            ends = Machine("guest", here), Machine("guest", there)
            sent, _ = migrate(*ends, tmp_path / str(turn), tracer)
            usual = usual or tracer.count
            assert [runs(end) for end in ends] == [sent.outcome is State.CANCELLED, sent.outcome is State.COMPLETED]
            left = here if sent.outcome is State.CANCELLED else there
            for device in left:
                device.verify()
            assert all(now > then for now, then in zip(steps(left), before, strict=True))
            outcomes.append(sent.outcome)
    assert outcomes[0] is State.COMPLETED
    assert State.CANCELLED in outcomes


def test_a_host_without_rings_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    need("kvm")
    host_with_rings_of(monkeypatch, 0)
    with pytest.raises(DeviceError) as refused, guest("source", "kvm", dirty_log="ring"):
        pass
    assert str(refused.value) == 'KVM on this host lacks KVM_CAP_DIRTY_LOG_RING: set dirty_log = "bitmap"'
    with guest("source", "kvm", dirty_log="auto") as made:
        assert made[0].note == "KVM dirty bitmap"


def test_a_host_with_smaller_rings_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    need("kvm")
    host_with_rings_of(monkeypatch, 4096)
    with pytest.raises(DeviceError, match=r"^KVM on this host has dirty rings of 4096 bytes at most, 65536 are asked"):
        KvmMachine(1, ring=65536)


@pytest.mark.parametrize("choice", ["ring", "bitmap"])
def test_unicorn_has_neither(choice: str) -> None:
    with pytest.raises(DeviceError) as refused, guest("source", "unicorn", dirty_log=choice):
        pass
    assert str(refused.value) == f'guest: dirty_log is "{choice}", which only KVM has: set dirty_log = "auto"'


def test_another_word_is_refused() -> None:
    with pytest.raises(DeviceError) as refused, guest("source", "kvm", dirty_log="rings"):
        pass
    assert str(refused.value) == 'guest option dirty_log is \'rings\': use "auto", "bitmap" or "ring"'


def test_a_full_ring_that_nobody_empties_is_said() -> None:
    """A machine made with rings, logged, but without the log."""
    size = smallest_ring()
    count = size // kvm_abi.DIRTY_GFN.size
    with closing(mmap.mmap(-1, count * program.PAGE_SIZE)) as memory:
        at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        region = MemoryRegion(at, OWN_MEMORY, len(memory), kvm_abi.MEM_LOG_DIRTY_PAGES)
        with closing(KvmMachine(1, [region], ring=size)) as machine:
            with pytest.raises(DeviceError) as refused:
                collections.deque(map(partial(write, machine), range(count)), maxlen=0)
            assert str(refused.value) == "its dirty ring is full, and there is no log to empty it"
