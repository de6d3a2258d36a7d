"""The proof agrees with running the guest's program step by step, and sees every single change."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.device import VerificationError
from migpool_plugins.vcpu import program
from migpool_plugins.vcpu.program import Guest, after, expected_page, prove

MASK = 2**64 - 1
SEED, INDEX, BATCH = 11, 1, 500


def step_by_step(start: int, iterations: int) -> tuple[int, int, list[int]]:
    x, checksum, page = start, 0, [0] * program.SLOTS
    for n in range(1, iterations + 1):
        x = (x * program.MULTIPLIER + program.INCREMENT) & MASK
        checksum = (checksum + x) & MASK
        page[n % program.SLOTS] = x
    return x, checksum, page


def guest_after(iterations: int, index: int = INDEX, seed: int = SEED) -> Guest:
    x, checksum, page = step_by_step(program.start_value(seed, index), iterations)
    registers = program.start_registers(seed, index, BATCH, program.OUT_BY_HALT)
    registers |= {"rax": x, "rcx": iterations}
    return Guest(index, registers, checksum, pack("<512Q", *page))


@given(start=st.integers(0, MASK), iterations=st.integers(0, 1500))
def test_the_closed_form_is_what_the_steps_give(start: int, iterations: int) -> None:
    x, checksum, page = step_by_step(start, iterations)
    assert after(start, iterations) == (x, checksum)
    assert expected_page(start, iterations) == page


@given(start=st.integers(0, MASK), first=st.integers(0, 2**62), then=st.integers(0, 2**62))
def test_going_on_from_a_point_arrives_where_one_go_does(start: int, first: int, then: int) -> None:
    x, checksum = after(start, first)
    later_x, later_checksum = after(x, then)
    assert after(start, first + then) == (later_x, (checksum + later_checksum) & MASK)


@pytest.mark.parametrize("iterations", [BATCH, 4 * BATCH])
def test_a_right_guest_is_proved(iterations: int) -> None:
    prove(guest_after(iterations), SEED, more_than=iterations - 1)


def test_a_guest_that_has_not_gone_on_is_refused() -> None:
    with pytest.raises(VerificationError, match=r"^vCPU 1 after 500 iterations: it has not gone on, 500 had been done"):
        prove(guest_after(BATCH), SEED, more_than=BATCH)


@pytest.mark.parametrize("register", ["rax", "rbx", "rdi", "r8", "r9", "r10"])
def test_a_changed_register_is_seen(register: str) -> None:
    guest = guest_after(4 * BATCH)
    changed = {**guest.registers, register: guest.registers[register] ^ 1}
    with pytest.raises(VerificationError, match=r"^vCPU 1 after 2000 iterations: register "):
        prove(replace(guest, registers=changed), SEED, more_than=0)


def test_a_batch_that_does_not_divide_the_iterations_is_seen() -> None:
    guest = guest_after(4 * BATCH)
    changed = {**guest.registers, "r8": BATCH + 1, "r10": BATCH + 1}
    with pytest.raises(VerificationError, match="no whole number of batches of 501"):
        prove(replace(guest, registers=changed), SEED, more_than=0)


def test_a_wrong_checksum_is_seen() -> None:
    guest = guest_after(4 * BATCH)
    with pytest.raises(VerificationError, match="the checksum in xmm0 is"):
        prove(replace(guest, checksum=guest.checksum ^ 1 << 63), SEED, more_than=0)


@pytest.mark.parametrize("slot", [0, 1, 255, 511])
def test_a_lost_write_is_seen_in_any_slot(slot: int) -> None:
    guest = guest_after(4 * BATCH)
    earlier = step_by_step(program.start_value(SEED, INDEX), 4 * BATCH - program.SLOTS)[2]
    page = bytearray(guest.page)
    page[slot * 8 : slot * 8 + 8] = pack("<Q", earlier[slot])
    with pytest.raises(VerificationError, match=f"slot {slot} of its page holds"):
        prove(replace(guest, page=bytes(page)), SEED, more_than=0)


def test_the_state_of_another_vcpu_is_seen() -> None:
    with pytest.raises(VerificationError, match=r"^vCPU 1 after 2000 iterations: register rax"):
        prove(replace(guest_after(4 * BATCH, index=0), index=1), SEED, more_than=0)


def test_the_state_of_another_migration_is_seen() -> None:
    with pytest.raises(VerificationError, match="register rax"):
        prove(guest_after(4 * BATCH, seed=SEED + 1), SEED, more_than=0)
