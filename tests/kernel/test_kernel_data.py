"""The state of a real driver's device: carried from one to another through the backend, whole and damaged."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.migration import MigrationState
from tests.kernel.mtty import HEADER_SIZE, STATE_SIZE, Uart, bring, make_devices, saved

pytestmark = pytest.mark.kernel


def load(uart: Uart, state: bytes, piece: int) -> None:
    """Write a state in pieces, and let the device run with it."""
    bring(uart, MigrationState.RESUMING)
    for at in range(0, len(state), piece):
        uart.backend.write(memoryview(state)[at : at + piece])
    uart.backend.set_state(MigrationState.RUNNING)


def refused(uart: Uart, state: bytes) -> BackendError:
    """What is said of a write to a device that is RESUMING."""
    with pytest.raises(BackendError, match=f"^{uart.name} refused a write of its state with ") as caught:
        uart.backend.write(memoryview(state))
    assert uart.backend.state() is MigrationState.RESUMING
    return caught.value


@pytest.mark.parametrize("piece", [1, 23, 24, 25, 96, 4096])
def test_a_state_that_was_read_and_written_is_the_same_there(uarts: tuple[Uart, Uart], piece: int) -> None:
    one, other = uarts
    one.put(b"fifteen letters", b"seven..")
    state = saved(one, piece)
    assert len(state) == STATE_SIZE
    assert b"fifteen letters" in state
    assert saved(other) != state
    load(other, state, piece)
    assert saved(other) == state
    assert (other.take(15), other.take(7, port=1)) == (b"fifteen letters", b"seven..")
    assert (other.scratch(), other.scratch(port=1)) == (45, 21)


@pytest.mark.parametrize("length", [0, 1, HEADER_SIZE - 1, HEADER_SIZE, STATE_SIZE - 1])
def test_a_state_that_was_cut_is_refused_and_can_be_completed(uarts: tuple[Uart, Uart], length: int) -> None:
    one, other = uarts
    one.put(b"whole")
    state = saved(one)
    bring(other, MigrationState.RESUMING)
    other.backend.write(memoryview(state)[:length])
    with pytest.raises(BackendError, match=r"EINVAL .*no complete state of this device") as caught:
        other.backend.set_state(MigrationState.RUNNING)
    assert caught.value.errno == errno.EINVAL
    assert other.backend.state() is MigrationState.RESUMING
    other.backend.write(memoryview(state)[length:])
    other.backend.set_state(MigrationState.RUNNING)
    assert saved(other) == state


@pytest.mark.parametrize("before", [0, 50, STATE_SIZE])
def test_more_than_a_state_is_refused(uarts: tuple[Uart, Uart], before: int) -> None:
    one, other = uarts
    state = saved(one)
    bring(other, MigrationState.RESUMING)
    other.backend.write(memoryview(state)[:before])
    error = refused(other, state[before:] + b"!")
    assert error.errno == errno.ENOMEM
    assert "devices of the same type" in str(error)


@pytest.mark.parametrize("at", [0, 8, 12, 16, 20])
def test_after_a_damaged_header_only_a_reset_is_taken(uarts: tuple[Uart, Uart], at: int) -> None:
    one, other = uarts
    one.put(b"right")
    other.put(b"untouched")
    before = saved(other)
    state = saved(one)
    damaged = bytearray(state)
    damaged[at] ^= 1
    bring(other, MigrationState.RESUMING)
    other.backend.write(memoryview(damaged)[: HEADER_SIZE - 1])
    error = refused(other, bytes(damaged[HEADER_SIZE - 1 : HEADER_SIZE]))
    assert error.errno == errno.EFAULT
    assert "damaged" in str(error)
    # The driver itself would take the rest, and then run with it.
    calls: list[Callable[[], object]] = [
        lambda: other.backend.write(memoryview(damaged)[HEADER_SIZE:]),
        lambda: other.backend.set_state(MigrationState.RUNNING),
    ]
    for call in calls:
        with pytest.raises(BackendError, match=r"EFAULT .*until it is reset"):
            call()
    other.backend.reset()
    assert other.backend.state() is MigrationState.RUNNING
    assert saved(other) == before
    load(other, state, STATE_SIZE)
    assert saved(other) == state


def test_the_state_of_another_type_is_refused(uarts: tuple[Uart, Uart]) -> None:
    with make_devices(1, "mtty-1") as (name,), Uart(name) as small:
        state = saved(small)
        assert len(state) < STATE_SIZE
        bring(uarts[0], MigrationState.RESUMING)
        assert refused(uarts[0], state).errno == errno.EFAULT
        bring(small, MigrationState.RESUMING)
        assert refused(small, saved(uarts[1])).errno == errno.ENOMEM


def test_a_save_that_was_left_begins_again(uarts: tuple[Uart, Uart]) -> None:
    uart, _ = uarts
    uart.put(b"again")
    whole = saved(uart)
    bring(uart, MigrationState.STOP_COPY)
    assert uart.backend.read(memoryview(bytearray(30))) == 30
    uart.backend.set_state(MigrationState.RUNNING)
    assert saved(uart) == whole
