"""The device class moves a device from state to state, and recovers it from every request that can fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migpool.device import DeviceError, Pending, VerificationError
from migpool_plugins.vfio.backend import BackendError
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.migration import Flags, MigrationState
from tests.support.vfio.memory_backend import MemoryBackend

M = MigrationState
PLAIN = Flags.STOP_COPY
P2P = Flags.STOP_COPY | Flags.P2P
ALL = Flags.STOP_COPY | Flags.P2P | Flags.PRE_COPY
EVERY_KIND = pytest.mark.parametrize("flags", [PLAIN, P2P, PLAIN | Flags.PRE_COPY, ALL], ids=str)


def source(backend: MemoryBackend) -> VfioDevice:
    return VfioDevice("dev/vfio", backend, "source")


def destination(backend: MemoryBackend) -> VfioDevice:
    return VfioDevice("dev/vfio", backend, "destination")


def read_all(read: Callable[[memoryview], int], size: int = 3) -> list[bytes]:
    room = memoryview(bytearray(size))
    parts = []
    while count := read(room):
        parts.append(bytes(room[:count]))
    return parts


def sets(backend: MemoryBackend) -> list[str]:
    return [call.removeprefix("set ") for call in backend.calls if call.startswith(("set ", "reset"))]


@EVERY_KIND
def test_a_device_goes_through_the_states_that_it_has_and_its_state_arrives(flags: Flags) -> None:
    ours, theirs = MemoryBackend(flags, initial=4), MemoryBackend(flags)
    saving, loading = source(ours), destination(theirs)
    loading.load_setup(saving.save_setup())
    parts = []
    while saving.pending().precopy:
        parts += read_all(saving.iterate)
    saving.quiesce()
    saving.stop()
    parts += read_all(saving.save_state)
    for part in parts:
        loading.load_state(memoryview(part))
    loading.load_config(saving.save_config())
    loading.wake()
    assert theirs.here is (M.RUNNING_P2P if Flags.P2P in flags else M.STOP)
    loading.start()
    loading.verify()
    assert bytes(theirs.loaded) == ours.content
    precopy, quiet = ["PRE_COPY"], ["PRE_COPY_P2P" if Flags.PRE_COPY in flags else "RUNNING_P2P"]
    assert sets(ours) == [
        *(precopy if Flags.PRE_COPY in flags else []),
        *(quiet if Flags.P2P in flags else []),
        "STOP_COPY",
    ]
    assert sets(theirs) == ["RESUMING", "STOP", *(["RUNNING_P2P"] if Flags.P2P in flags else []), "RUNNING"]
    assert saving.peer_to_peer is loading.peer_to_peer is (Flags.P2P in flags)


def test_precopy_can_be_left_out() -> None:
    backend = MemoryBackend(ALL, initial=4)
    device = VfioDevice("dev/vfio", backend, "source", precopy=False)
    device.save_setup()
    states = [backend.here]
    assert device.pending() == Pending(stopcopy=10)
    device.quiesce()
    assert [*states, backend.here] == [M.RUNNING, M.RUNNING_P2P]


def test_pending_is_what_the_device_says() -> None:
    backend = MemoryBackend(ALL, initial=4)
    device = source(backend)
    assert device.pending() == Pending()
    device.save_setup()
    assert device.pending() == Pending(precopy=4, stopcopy=6, initial=4)
    read_all(device.iterate)
    backend.dirty = 5
    assert device.pending() == Pending(precopy=5, stopcopy=5, initial=0)
    device.quiesce()
    device.stop()
    assert device.pending() == Pending(stopcopy=6)
    device.save_state(memoryview(bytearray(2)))
    assert device.pending() == Pending(stopcopy=4)


def test_a_device_that_cannot_say_what_is_left_is_read_until_it_has_nothing() -> None:
    device = source(MemoryBackend(ALL, initial=4, knows_precopy=False, knows_size=False))
    device.save_setup()
    assert device.pending() == Pending(precopy=256 << 20, stopcopy=0, guessed=True)
    assert read_all(device.iterate) == [b"012", b"3"]
    assert device.pending() == Pending()


@EVERY_KIND
@pytest.mark.parametrize("until", ["set-up", "quiesce", "stop", "read"])
def test_a_source_can_go_on_and_be_saved_again(until: str, flags: Flags) -> None:
    backend = MemoryBackend(flags, initial=4)
    device = source(backend)
    for _ in range(2):
        device.save_setup()
        if until != "set-up":
            device.quiesce()
        if until in ("stop", "read"):
            device.stop()
        if until == "read":
            device.save_state(memoryview(bytearray(3)))
        device.abort()
        with pytest.raises(DeviceError, match="aborted"):
            device.stop()
        device.wake()
        assert backend.here in (M.RUNNING, M.RUNNING_P2P, M.PRE_COPY) or Flags.P2P not in flags
        device.resume()
        assert backend.here is M.RUNNING
    device.save_setup()
    device.quiesce()
    device.stop()
    assert b"".join(read_all(device.save_state)) == backend.content


@EVERY_KIND
@pytest.mark.parametrize(
    ("call", "bad", "left_in"),
    [
        ("save_setup", M.PRE_COPY, M.RUNNING),
        ("quiesce", M.RUNNING_P2P, M.RUNNING),
        ("quiesce", M.PRE_COPY_P2P, M.RUNNING),
        ("stop", M.STOP_COPY, M.STOP),
    ],
)
def test_a_source_that_refuses_a_state_is_brought_to_the_one_that_fits(
    call: str, bad: MigrationState, left_in: MigrationState, flags: Flags
) -> None:
    backend = MemoryBackend(flags, failing={bad})
    device = source(backend)

    def steps() -> None:
        device.save_setup()
        device.quiesce()
        device.stop()

    reachable = {
        M.PRE_COPY: Flags.PRE_COPY in flags,
        M.RUNNING_P2P: Flags.P2P in flags and Flags.PRE_COPY not in flags,
        M.PRE_COPY_P2P: flags == ALL,
        M.STOP_COPY: True,
    }
    if not reachable[bad]:
        steps()
        return
    with pytest.raises(BackendError, match=rf"to {bad.name}: refused; the device (is|was) in"):
        steps()
    # A stop that failed on its way out of pre-copy can lead nowhere but through RUNNING.
    assert backend.here is left_in, call
    device.wake()
    device.resume()
    assert backend.here is M.RUNNING


def test_a_walk_that_fails_half_way_is_told_with_the_step_it_reached() -> None:
    backend = MemoryBackend(P2P, half_way=M.STOP_COPY)
    device = source(backend)
    device.save_setup()
    with pytest.raises(BackendError, match=r"STOP to STOP_COPY: refused; the device is in STOP$"):
        device.stop()
    backend.half_way = M.RUNNING
    device.wake()
    with pytest.raises(
        BackendError, match="RUNNING_P2P to RUNNING: refused; the device was in RUNNING_P2P, it was reset"
    ):
        device.resume()
    assert backend.here is M.RUNNING


def test_a_recovery_that_is_refused_ends_in_a_reset_and_all_of_it_is_told() -> None:
    backend = MemoryBackend(PLAIN, failing={"read"})
    device = source(backend)
    device.save_setup()
    device.stop()
    backend.failing.add(M.STOP)
    with pytest.raises(BackendError) as caught:
        device.save_state(memoryview(bytearray(3)))
    assert str(caught.value) == (
        "read failed; the device was in STOP_COPY, STOP was refused (STOP_COPY to STOP: refused), it was reset"
    )
    assert backend.here is M.RUNNING


def test_a_reset_that_fails_is_told_too() -> None:
    backend = MemoryBackend(PLAIN)
    device = source(backend)
    device.stop()
    backend.failing = {"read", "reset", M.STOP}
    with pytest.raises(BackendError) as caught:
        device.save_state(memoryview(bytearray(3)))
    assert str(caught.value) == (
        "read failed; the device was in STOP_COPY, STOP was refused (STOP_COPY to STOP: refused), "
        "a reset was refused (reset failed), RUNNING was refused (STOP_COPY to STOP: refused): "
        "it stays in STOP_COPY and cannot be used, rebind its driver or restart its server"
    )


def test_a_device_in_error_is_only_reset() -> None:
    backend = MemoryBackend(PLAIN, failing={"read"})
    device = source(backend)
    device.stop()
    backend.here = M.ERROR
    with pytest.raises(BackendError, match=r"read failed; the device was in ERROR, it was reset$"):
        device.save_state(memoryview(bytearray(3)))
    assert sets(backend) == ["STOP_COPY", "reset"]


def test_a_device_that_does_not_answer_at_all_is_told_once() -> None:
    backend = MemoryBackend(PLAIN)
    device = source(backend)
    device.save_setup()
    backend.closed = True
    with pytest.raises(BackendError) as caught:
        device.stop()
    assert str(caught.value) == "the device has been closed"


@pytest.mark.parametrize("request_name", ["size", "info"])
def test_an_estimate_that_fails_brings_the_device_back_to_running(request_name: str) -> None:
    backend = MemoryBackend(ALL, failing={request_name})
    device = source(backend)

    def ask() -> None:
        device.save_setup()
        device.pending()

    with pytest.raises(BackendError, match=f"{request_name} failed; the device was in PRE_COPY and went to RUNNING"):
        ask()
    assert backend.here is M.RUNNING


def test_a_write_that_failed_is_fatal_even_if_the_device_would_take_the_next() -> None:
    backend = MemoryBackend(PLAIN, failing={"write"})
    device = destination(backend)
    device.load_setup(b"")
    for _ in range(2):
        with pytest.raises(BackendError, match="write failed; the device was in RESUMING, it was reset"):
            device.load_state(memoryview(b"01"))
        backend.failing.clear()
    with pytest.raises(BackendError, match="write failed"):
        device.load_config(b"")
    with pytest.raises(BackendError, match="write failed"):
        device.start()
    assert backend.calls.count("write") == backend.calls.count("reset") == 1
    assert backend.here is M.RUNNING


def test_the_device_judges_its_state_before_the_machine_is_about_to_run() -> None:
    backend = MemoryBackend(P2P, judges=20)
    saving, device = source(MemoryBackend(P2P)), destination(backend)
    saving.stop()
    device.load_setup(b"")
    for part in read_all(saving.save_state):
        device.load_state(memoryview(part))
    with pytest.raises(BackendError, match="RESUMING to STOP: refused; the device was in RESUMING, it was reset"):
        device.load_config(saving.save_config())
    with pytest.raises(BackendError, match="refused"):
        device.wake()


def test_a_tail_that_is_missing_is_found_whatever_the_device_thinks() -> None:
    backend = MemoryBackend(P2P)
    saving, device = source(MemoryBackend(P2P)), destination(backend)
    saving.stop()
    device.load_setup(b"")
    for part in read_all(saving.save_state)[:-1]:
        device.load_state(memoryview(part))
    with pytest.raises(VerificationError, match="the state is incomplete: 9 of 10 bytes have come; the device was in"):
        device.load_config(saving.save_config())
    assert backend.here is M.RUNNING


@pytest.mark.parametrize("config", [b"", b"x" * 16, b"vfiodone"])
def test_a_config_of_something_else_is_refused(config: bytes) -> None:
    backend = MemoryBackend(P2P)
    device = destination(backend)
    device.load_setup(b"")
    with pytest.raises(VerificationError, match="not one of a VFIO device"):
        device.load_config(config)
    assert backend.here is M.RUNNING


@pytest.mark.parametrize(("call", "bad"), [("load_setup", M.RESUMING), ("wake", M.RUNNING_P2P), ("start", M.RUNNING)])
def test_a_destination_that_refuses_a_state_is_left_running(call: str, bad: MigrationState) -> None:
    saving, backend = source(MemoryBackend(P2P)), MemoryBackend(P2P)
    if call == "load_setup":
        backend.failing.add(bad)
    saving.stop()
    device = destination(backend)
    backend.loaded += b"x"

    def steps() -> None:
        device.load_setup(b"")
        for part in read_all(saving.save_state):
            device.load_state(memoryview(part))
        device.load_config(saving.save_config())
        backend.failing.add(bad)
        device.wake()
        device.start()

    with pytest.raises(BackendError, match=f"to {bad.name}: refused; the device was in"):
        steps()
    assert backend.here is M.RUNNING, call


@pytest.mark.parametrize("found", [M.STOP_COPY, M.RESUMING, M.PRE_COPY, M.ERROR, M.STOP])
def test_what_an_earlier_user_left_is_reset_and_said(found: MigrationState) -> None:
    saving, loading = source(MemoryBackend(ALL, here=found)), destination(MemoryBackend(ALL, here=found))
    saving.save_setup()
    loading.load_setup(b"")
    for device in (saving, loading):
        assert device.note == f"in memory, found in {found.name} and reset"


@pytest.mark.parametrize("left", list(M))
def test_a_device_is_closed_in_running(left: MigrationState) -> None:
    backend = MemoryBackend(ALL, here=left)
    device = source(backend)
    device.abort()
    device.close()
    device.close()
    assert backend.closed
    assert backend.here is M.RUNNING
    assert backend.calls == ["state"] + ["reset", "state"] * (left is not M.RUNNING)
    with pytest.raises(DeviceError, match="closed"):
        device.resume()


def test_a_device_that_runs_elsewhere_does_not_verify() -> None:
    backend = MemoryBackend(P2P)
    device = destination(backend)
    device.verify()
    backend.here = M.STOP
    with pytest.raises(VerificationError, match="the device is in STOP, not in RUNNING"):
        device.verify()


def test_after_an_abort_nothing_is_recovered_behind_the_back_of_who_aborted() -> None:
    backend = MemoryBackend(PLAIN)
    device = source(backend)
    device.stop()
    backend.calls.clear()
    device.abort()
    with pytest.raises(BackendError) as caught:
        device.save_state(memoryview(bytearray(3)))
    assert str(caught.value) == "the device's work was aborted"
    assert backend.calls == ["read"]
    assert backend.here is M.STOP_COPY


def test_a_source_hands_out_the_descriptor_that_its_backend_can_wait_on() -> None:
    backend = MemoryBackend(P2P)
    device = source(backend)
    assert device.poll_fd() is None
    backend.descriptor = 7
    assert device.poll_fd() == 7
    assert destination(backend).poll_fd() is None
