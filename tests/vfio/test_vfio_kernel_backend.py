"""The backend of the kernel's interface, on a driver that does what real ones were seen to do."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.kernel import open_kernel
from migpool_plugins.vfio.kernel.backend import KernelBackend
from migpool_plugins.vfio.kernel.host import Host
from migpool_plugins.vfio.migration import READABLE, WRITABLE, Flags, MigrationState
from tests.support.vfio.fake_driver import HEADER, FakeDevice, FakeDriver
from tests.support.vfio.made_host import UUIDS, MadeHost
from tests.support.vfio.vfio_rig import LIMIT, Blocked

M = MigrationState
NAME = UUIDS[0]
TAIL = b" and the rest"


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def driver(tmp_path: Path, device: FakeDevice) -> FakeDriver:
    made = MadeHost(tmp_path / "host")
    made.vfio("7")
    made.mediated(NAME)
    return FakeDriver(made.root, {NAME: device})


@pytest.fixture
def opened(driver: FakeDriver) -> Iterator[Callable[..., KernelBackend]]:
    """Opens the device; it is closed when the test ends, and then nothing is open."""
    made: list[KernelBackend] = []

    def open_one(time_limit: float = LIMIT) -> KernelBackend:
        made.extend(open_kernel([NAME], time_limit=time_limit, host=Host(driver.root), calls=driver))
        return made[-1]

    yield open_one
    for backend in made:
        backend.close()
    assert not driver.opened()


@pytest.fixture
def backend(opened: Callable[..., KernelBackend]) -> KernelBackend:
    return opened()


def read_all(backend: KernelBackend, piece: int = 7) -> bytes:
    buffer, got = memoryview(bytearray(piece)), b""
    while count := backend.read(buffer):
        got += buffer[:count]
    return got


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def data_fd(device: FakeDevice) -> int:
    assert device.data is not None
    return device.data.fd


# ---- what the device is


def test_what_it_says_of_itself(backend: KernelBackend) -> None:
    assert backend.note == "kernel driver mtty, group 7"
    assert backend.flags == Flags.STOP_COPY | Flags.P2P | Flags.PRE_COPY
    assert backend.state() is M.RUNNING
    assert backend.data_size() == len(HEADER + TAIL)


def test_a_driver_without_migration_is_refused(device: FakeDevice, opened: Callable[..., KernelBackend]) -> None:
    device.failing["migration"] = errno.ENOTTY
    with pytest.raises(BackendError, match=r"ENOTTY .*the driver mtty has no migration of version 2") as caught:
        opened()
    assert caught.value.errno == errno.ENOTTY


def test_a_device_without_stop_copy_is_refused(device: FakeDevice, opened: Callable[..., KernelBackend]) -> None:
    device.flags = Flags.PRE_COPY
    with pytest.raises(BackendError, match=f"{NAME} has no stop-copy"):
        opened()


def test_a_driver_need_not_know_how_much_there_is(device: FakeDevice, backend: KernelBackend) -> None:
    device.failing["data size"] = errno.ENOTTY
    assert backend.data_size() is None
    device.failing["data size"] = errno.EIO
    with pytest.raises(BackendError, match="EIO"):
        backend.data_size()


# ---- the data descriptor


def test_no_new_descriptor_between_pre_copy_and_stop_copy_means_the_old_one(
    device: FakeDevice, backend: KernelBackend
) -> None:
    backend.set_state(M.PRE_COPY)
    fd = data_fd(device)
    assert read_all(backend) == HEADER
    backend.set_state(M.PRE_COPY_P2P)
    backend.set_state(M.STOP_COPY)
    assert data_fd(device) == fd
    assert read_all(backend) == TAIL
    backend.set_state(M.RUNNING)
    assert not is_open(fd)


@pytest.mark.parametrize("begin", [*READABLE, *WRITABLE], ids=lambda state: state.name)
def test_the_descriptor_is_closed_when_the_states_are_left(
    device: FakeDevice, backend: KernelBackend, begin: MigrationState
) -> None:
    backend.set_state(begin)
    fd = data_fd(device)
    if begin is M.RESUMING:
        backend.write(memoryview(HEADER + TAIL))
    backend.set_state(M.RUNNING)
    assert not is_open(fd)
    with pytest.raises(BackendError, match=f"{NAME} is RUNNING: a read needs PRE_COPY"):
        backend.read(memoryview(bytearray(1)))


def test_a_new_visit_has_a_new_descriptor(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.STOP_COPY)
    first = device.data
    assert read_all(backend, 5) == HEADER + TAIL
    backend.set_state(M.STOP)
    backend.set_state(M.STOP_COPY)
    assert device.data is not first
    assert read_all(backend) == HEADER + TAIL


def test_from_reading_to_writing(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.STOP_COPY)
    backend.set_state(M.RESUMING)
    with pytest.raises(BackendError, match="is RESUMING: a read needs"):
        backend.read(memoryview(bytearray(1)))
    backend.write(memoryview(HEADER + b" and this too"))
    backend.set_state(M.RUNNING)
    assert device.content == HEADER + b" and this too"


def test_a_state_that_was_left_behind_our_back_is_an_error(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.STOP_COPY)
    device.leave()
    device.here = M.RUNNING
    with pytest.raises(BackendError, match=r"ENODEV .*its save is lost \(RUNNING\)") as caught:
        read_all(backend)
    assert caught.value.errno == errno.ENODEV


# ---- requests that fail


def test_out_of_resuming_with_too_little_and_then_the_rest(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.RESUMING)
    backend.write(memoryview(HEADER))
    with pytest.raises(BackendError, match=r"EINVAL .*no complete state of this device") as caught:
        backend.set_state(M.RUNNING)
    assert caught.value.errno == errno.EINVAL
    assert is_open(data_fd(device)), "the -1 of a request that failed is not a descriptor that was taken away"
    backend.write(memoryview(TAIL))
    backend.set_state(M.RUNNING)
    assert device.content == HEADER + TAIL


def test_a_request_that_ends_half_way(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.STOP_COPY)
    fd = data_fd(device)
    device.half_way = M.STOP
    with pytest.raises(BackendError, match="refused to become RUNNING from STOP_COPY and is STOP with EIO"):
        backend.set_state(M.RUNNING)
    assert backend.state() is M.STOP
    assert not is_open(fd)
    device.half_way = None
    backend.set_state(M.RUNNING)


@pytest.mark.parametrize("target", [M.ERROR, M.PRE_COPY], ids=lambda state: state.name)
def test_where_no_way_leads(device: FakeDevice, backend: KernelBackend, target: MigrationState) -> None:
    backend.set_state(M.STOP_COPY)
    with pytest.raises(BackendError, match=f"{NAME} refused to become {target.name} .*EINVAL .*no way leads there"):
        backend.set_state(target)
    assert backend.state() is M.STOP_COPY
    assert read_all(backend) == HEADER + TAIL
    assert device.here is M.STOP_COPY


def test_a_device_in_error_is_to_be_reset(device: FakeDevice, backend: KernelBackend) -> None:
    device.here = M.ERROR
    with pytest.raises(BackendError, match=r"and is ERROR with EINVAL .*: reset it"):
        backend.set_state(M.RUNNING)
    backend.reset()
    assert backend.state() is M.RUNNING


def test_a_bad_header_is_refused_once_by_the_driver_and_until_a_reset_by_us(
    device: FakeDevice, backend: KernelBackend
) -> None:
    backend.set_state(M.RESUMING)
    bad = bytearray(HEADER + TAIL)
    bad[3] ^= 1
    backend.write(memoryview(bad)[:10])
    with pytest.raises(BackendError, match=r"EFAULT .*is damaged") as caught:
        backend.write(memoryview(bad)[10:])
    assert caught.value.errno == errno.EFAULT
    calls: list[Callable[[], object]] = [
        lambda: backend.write(memoryview(b"more")),
        lambda: backend.set_state(M.RUNNING),
    ]
    for call in calls:
        with pytest.raises(BackendError, match=r"EFAULT .*until it is reset nothing more is asked of it"):
            call()
    assert device.here is M.RESUMING
    backend.reset()
    backend.set_state(M.RESUMING)
    backend.write(memoryview(HEADER + TAIL))
    backend.set_state(M.RUNNING)


def test_too_much_is_refused_whole(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.RESUMING)
    with pytest.raises(BackendError, match=r"ENOMEM .*devices of the same type") as caught:
        backend.write(memoryview(HEADER + TAIL + b"!"))
    assert caught.value.errno == errno.ENOMEM
    assert device.data is not None
    assert not device.data.content


def test_a_write_goes_on_until_all_is_taken(device: FakeDevice, backend: KernelBackend) -> None:
    device.takes = 3
    backend.set_state(M.RESUMING)
    backend.write(memoryview(HEADER + TAIL))
    backend.set_state(M.RUNNING)
    assert device.content == HEADER + TAIL


def test_a_driver_that_takes_nothing_is_not_asked_forever(device: FakeDevice, backend: KernelBackend) -> None:
    device.takes = 0
    backend.set_state(M.RESUMING)
    with pytest.raises(BackendError, match="took nothing of a write"):
        backend.write(memoryview(HEADER))


def test_a_reset_that_fails_says_what_to_do(device: FakeDevice, backend: KernelBackend) -> None:
    device.failing["reset"] = errno.EINVAL
    with pytest.raises(BackendError, match=r"refused to be reset with EINVAL .*bind it again"):
        backend.reset()


# ---- pre-copy


def test_what_is_left_to_pre_copy(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.PRE_COPY)
    assert backend.precopy_info() == (len(HEADER), 5)
    backend.read(memoryview(bytearray(4)))
    assert backend.precopy_info() == (len(HEADER) - 4, 5)
    device.failing["pre-copy info"] = errno.ENOTTY
    assert backend.precopy_info() is None
    del device.failing["pre-copy info"]
    backend.set_state(M.STOP_COPY)
    with pytest.raises(BackendError, match=r"EINVAL .*it is STOP_COPY, and says so in PRE_COPY only"):
        backend.precopy_info()


@pytest.mark.parametrize("pollable", [False, True])
def test_nothing_more_just_now_is_no_end_and_no_error(
    device: FakeDevice, opened: Callable[..., KernelBackend], pollable: bool
) -> None:
    device.pollable = pollable
    backend = opened()
    backend.set_state(M.PRE_COPY)
    device.reading = [errno.ENOMSG, 0, errno.ENOMSG]
    assert backend.read(memoryview(bytearray(64))) == 0
    assert read_all(backend, 64) == HEADER
    backend.set_state(M.STOP_COPY)
    device.reading = [errno.ENOMSG]
    with pytest.raises(BackendError, match="ENOMSG"):
        backend.read(memoryview(bytearray(64)))


# ---- waiting


def test_poll_says_ready_at_once_where_epoll_refuses(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.STOP_COPY)
    fd = data_fd(device)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0), "which is why poll is not believed"
    with select.epoll() as selector, pytest.raises(PermissionError):
        selector.register(fd)
    assert backend.poll_fd() is None


def test_a_selector_can_wait_where_epoll_accepts(device: FakeDevice, opened: Callable[..., KernelBackend]) -> None:
    device.pollable = True
    backend = opened()
    assert backend.poll_fd() is None
    backend.set_state(M.RESUMING)
    assert backend.poll_fd() is None, "nothing is read there"
    backend.reset()
    backend.set_state(M.STOP_COPY)
    fd = backend.poll_fd()
    assert fd == data_fd(device)
    assert select.select([fd], [], [], 0)[0]


def emptied(device: FakeDevice, backend: KernelBackend) -> None:
    """Bring a device that can be waited for to where it has nothing to give yet."""
    backend.set_state(M.STOP_COPY)
    backend.read(memoryview(bytearray(100)))
    os.eventfd_read(data_fd(device))


def test_a_wait_ends_when_there_is_data(device: FakeDevice, opened: Callable[..., KernelBackend]) -> None:
    device.pollable = True
    backend = opened()
    emptied(device, backend)
    buffer = memoryview(bytearray(100))
    got: list[int] = []
    waiting = Blocked(lambda: got.append(backend.read(buffer)))
    device.ready(b"late")
    assert waiting.ended() is None
    assert bytes(buffer[: got[0]]) == b"late"


def test_a_wait_ends_at_once_when_it_is_aborted(device: FakeDevice, opened: Callable[..., KernelBackend]) -> None:
    device.pollable = True
    backend = opened(time_limit=3600)
    emptied(device, backend)
    waiting = Blocked(lambda: backend.read(memoryview(bytearray(1))))
    backend.abort()
    assert "aborted" in str(waiting.ended())


def test_a_wait_ends_at_its_limit(device: FakeDevice, opened: Callable[..., KernelBackend]) -> None:
    device.pollable = True
    backend = opened(time_limit=0.05)
    emptied(device, backend)
    with pytest.raises(BackendError, match=r"read did not begin within 0\.05 s"):
        backend.read(memoryview(bytearray(1)))


def test_a_driver_that_is_not_ready_after_all_is_waited_for_again(
    device: FakeDevice, opened: Callable[..., KernelBackend]
) -> None:
    device.pollable = True
    backend = opened()
    backend.set_state(M.STOP_COPY)
    device.reading = [errno.EAGAIN, errno.EAGAIN]
    assert backend.read(memoryview(bytearray(100))) == len(HEADER + TAIL)
    backend.set_state(M.RUNNING)
    backend.set_state(M.RESUMING)
    device.writing = [errno.EAGAIN, 0]
    backend.write(memoryview(HEADER + TAIL))
    backend.set_state(M.RUNNING)


def test_an_abort_is_seen_after_a_call_that_nothing_can_end(device: FakeDevice, backend: KernelBackend) -> None:
    backend.set_state(M.RESUMING)
    device.takes = 1
    device.meanwhile = backend.abort
    with pytest.raises(BackendError, match="aborted"):
        backend.write(memoryview(HEADER))
    assert device.data is not None
    assert len(device.data.content) == 1
    backend.renew()
    backend.reset()
    backend.set_state(M.STOP_COPY)
    with pytest.raises(BackendError, match="aborted"):
        backend.read(memoryview(bytearray(4)))


# ---- the end


def test_an_abort_can_be_taken_back(backend: KernelBackend) -> None:
    backend.set_state(M.STOP_COPY)
    backend.abort()
    backend.abort()
    calls: list[Callable[[], object]] = [
        backend.state,
        backend.reset,
        backend.data_size,
        backend.precopy_info,
        lambda: backend.set_state(M.RUNNING),
        lambda: backend.read(memoryview(bytearray(1))),
    ]
    for call in calls:
        with pytest.raises(BackendError, match="aborted"):
            call()
    backend.renew()
    backend.renew()
    assert read_all(backend) == HEADER + TAIL


@pytest.mark.parametrize("state", [state for state in M if state is not M.RUNNING], ids=lambda state: state.name)
def test_a_device_is_reset_before_it_is_closed(
    device: FakeDevice, opened: Callable[..., KernelBackend], state: MigrationState
) -> None:
    backend = opened()
    if state is M.ERROR:
        device.here = state
    else:
        backend.set_state(state)
    backend.abort()
    backend.close()
    backend.close()
    assert (device.here, device.resets) == (M.RUNNING, 1)
    with pytest.raises(BackendError, match="closed"):
        backend.state()
    backend.abort()
    backend.renew()


def test_a_device_that_runs_is_closed_as_it_is(device: FakeDevice, opened: Callable[..., KernelBackend]) -> None:
    opened().close()
    assert device.resets == 0


def test_a_device_that_cannot_be_reset_is_closed_all_the_same(
    device: FakeDevice, opened: Callable[..., KernelBackend]
) -> None:
    backend = opened()
    backend.set_state(M.STOP_COPY)
    fd = data_fd(device)
    device.failing["reset"] = errno.EIO
    backend.close()
    assert not is_open(fd)
