"""The states of a real driver: what it walks, what it refuses, and what is said of that."""

from __future__ import annotations

import errno

import pytest

from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.kernel import open_kernel
from migpool_plugins.vfio.migration import ARCS, READABLE, WRITABLE, Flags, MigrationState, path
from tests.kernel.mtty import HEADER_SIZE, REACHED, STATE_SIZE, WAYS, Uart, bring, read_all, saved

pytestmark = pytest.mark.kernel
STATES = [state for state in MigrationState if state is not MigrationState.ERROR]
WHOLE = Flags.STOP_COPY | Flags.P2P | Flags.PRE_COPY


def test_it_says_what_it_can_do(uarts: tuple[Uart, Uart]) -> None:
    backend = uarts[0].backend
    assert backend.flags == WHOLE
    assert backend.state() is MigrationState.RUNNING
    assert backend.data_size() == STATE_SIZE
    assert backend.note.startswith(REACHED)


@pytest.mark.parametrize("begin", STATES, ids=lambda state: state.name)
def test_it_walks_the_arcs_that_the_table_says_and_no_others(uarts: tuple[Uart, Uart], begin: MigrationState) -> None:
    uart, other = uarts
    content = saved(other)
    for end in MigrationState:
        bring(uart, begin)
        if begin in WRITABLE:
            uart.backend.write(memoryview(content))
        if path(begin, end, WHOLE) is None:
            with pytest.raises(BackendError, match="EINVAL") as caught:
                uart.backend.set_state(end)
            assert caught.value.errno == errno.EINVAL
            assert f"and is {begin.name}" in str(caught.value)
            assert uart.name in str(caught.value)
            assert uart.backend.state() is begin
        else:
            uart.backend.set_state(end)
            assert uart.backend.state() is end
        uart.backend.reset()
        assert uart.backend.state() is MigrationState.RUNNING


def test_the_table_of_arcs_is_not_empty_for_the_test_above() -> None:
    assert sum(path(begin, end, WHOLE) is not None for begin in ARCS for end in ARCS) == 47


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_state_is_read_and_written_in_its_own_states_only(uarts: tuple[Uart, Uart], state: MigrationState) -> None:
    backend = uarts[0].backend
    bring(uarts[0], state)
    if state not in READABLE:
        with pytest.raises(BackendError, match=rf"{uarts[0].name} is {state.name}: a read needs PRE_COPY") as caught:
            backend.read(memoryview(bytearray(8)))
        assert caught.value.errno == errno.EINVAL
    if state not in WRITABLE:
        with pytest.raises(BackendError, match=rf"{uarts[0].name} is {state.name}: a write needs RESUMING"):
            backend.write(memoryview(b"state"))
    assert backend.state() is state


def test_the_descriptor_from_pre_copy_goes_on_in_stop_copy(uarts: tuple[Uart, Uart]) -> None:
    uart, _ = uarts
    uart.put(b"first", b"second")
    whole = saved(uart)
    bring(uart, MigrationState.PRE_COPY)
    assert uart.backend.precopy_info() == (HEADER_SIZE, 0)
    early = read_all(uart, 10)
    info = uart.backend.precopy_info()
    assert info is not None
    assert info[0] == 0
    bring(uart, MigrationState.STOP_COPY)
    assert early + read_all(uart, 7) == whole
    assert len(early) == HEADER_SIZE
    with pytest.raises(BackendError, match="in PRE_COPY only"):
        uart.backend.precopy_info()


def test_a_selector_cannot_wait_for_it(uarts: tuple[Uart, Uart]) -> None:
    bring(uarts[0], MigrationState.STOP_COPY)
    assert uarts[0].backend.poll_fd() is None


def test_closing_leaves_a_device_that_runs(devices: tuple[str, str]) -> None:
    for state in STATES:
        with Uart(devices[0]) as uart:
            bring(uart, state)
        with Uart(devices[0]) as uart:
            assert uart.backend.state() is MigrationState.RUNNING


def test_the_way_that_is_here_can_be_asked_for_and_the_other_one_is_refused_with_what_is_missing(
    devices: tuple[str, str],
) -> None:
    here, other = WAYS
    opened = open_kernel(devices, way=here)
    assert [backend.note.startswith(REACHED) for backend in opened] == [True, True]
    for backend in opened:
        backend.close()
    with pytest.raises(BackendError, match=f"^{devices[0]} has no .*: use {'its group' if here == 'group' else here}$"):
        open_kernel(devices, way=other)


def test_a_device_is_opened_once(devices: tuple[str, str]) -> None:
    with (
        Uart(devices[0]),
        pytest.raises(BackendError, match=f"^{devices[0]} refused .* with E(BUSY|INVAL) .*close that first$"),
    ):
        Uart(devices[0])


def test_what_was_aborted_goes_on_after_it_is_renewed(uarts: tuple[Uart, Uart]) -> None:
    backend = uarts[0].backend
    bring(uarts[0], MigrationState.STOP_COPY)
    backend.abort()
    for call in (backend.state, backend.reset, lambda: backend.read(memoryview(bytearray(8)))):
        with pytest.raises(BackendError, match="aborted"):
            call()
    backend.renew()
    assert backend.state() is MigrationState.STOP_COPY
    assert len(read_all(uarts[0])) == STATE_SIZE
