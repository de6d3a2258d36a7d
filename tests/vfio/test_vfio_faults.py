"""Devices that fail, stall, crash and read short: each gives one clear error, or none where nothing is wrong."""

from __future__ import annotations

import os
import signal

import pytest

from migpool.device import DeviceError, OptionValue
from migpool_plugins.vfio.emulated import EmulatedVfioDevice
from tests.support.forking import as_a_user_does
from tests.support.vfio.vfio_rig import CHUNK, Blocked, OpenSide, Saver

AT = 2 * CHUNK + 100


def fault(kind: str, side: str = "source", device: int = 0) -> OptionValue:
    return {"device": device, "side": side, "at": AT, "kind": kind}


def read_all(device: EmulatedVfioDevice, buffer: memoryview) -> list[int]:
    """Read to the end; returns the lengths."""
    lengths: list[int] = []
    while count := device.save_state(buffer):
        lengths.append(count)
    return lengths


def test_a_read_error_comes_after_the_bytes_before_it(open_side: OpenSide, buffer: memoryview) -> None:
    (device,) = open_side("source", fault=fault("error"))
    device.stop()
    # In vfio-user a short answer is the end of the state: there the whole read fails.
    before = [CHUNK, CHUNK, 100] if device.profile.transport == "descriptor" else [CHUNK, CHUNK]
    assert [device.save_state(buffer) for _ in before] == before
    with pytest.raises(DeviceError, match=f"the read failed at byte {AT} of the state: input/output error"):
        device.save_state(buffer)


def test_after_a_read_error_the_device_can_be_resumed_and_saved(
    open_side: OpenSide, save: Saver, buffer: memoryview, tiny_chunks: list[bytes]
) -> None:
    (device,) = open_side("source", fault=fault("error"))
    device.stop()
    with pytest.raises(DeviceError, match="the read failed"):
        read_all(device, buffer)
    device.resume()
    assert save(device) == tiny_chunks


def test_a_write_error_fails_the_write_that_holds_the_byte(open_side: OpenSide, tiny_chunks: list[bytes]) -> None:
    (device,) = open_side("destination", fault=fault("error", "destination"))
    device.load_setup(b"")
    for chunk in tiny_chunks[:2]:
        device.load_state(memoryview(chunk))
    with pytest.raises(DeviceError, match=f"the write failed at byte {AT} of the state: input/output error"):
        device.load_state(memoryview(tiny_chunks[2]))


def test_a_short_read_is_short_once_and_loses_nothing(
    open_side: OpenSide, save: Saver, tiny_chunks: list[bytes]
) -> None:
    (device,) = open_side("source", fault=fault("short-read"))
    chunks = save(device)
    assert [len(chunk) for chunk in chunks].count(100) == 1
    assert b"".join(chunks) == b"".join(tiny_chunks)


def test_a_crash_while_reading_is_an_error_for_every_device_of_the_process(
    open_side: OpenSide, buffer: memoryview
) -> None:
    first, second = open_side("source", count=2, fault=fault("crash", device=1))
    first.save_setup()
    second.stop()
    with pytest.raises(DeviceError, match=r"the device process ended \(exit status 70\)"):
        read_all(second, buffer)
    for call in (first.stop, second.resume, second.save_config, first.fingerprint):
        with pytest.raises(DeviceError, match=r"the device process ended \(exit status 70\)"):
            call()


def test_a_crash_while_writing_is_an_error_of_the_write(open_side: OpenSide, tiny_chunks: list[bytes]) -> None:
    (device,) = open_side("destination", fault=fault("crash", "destination"))
    device.load_setup(b"")
    for chunk in tiny_chunks[:2]:
        device.load_state(memoryview(chunk))
    with pytest.raises(DeviceError, match=r"the device process ended \(exit status 70\)"):
        device.load_state(memoryview(tiny_chunks[2]))


def test_a_killed_process_ends_a_blocked_read_and_a_blocked_request(open_side: OpenSide, buffer: memoryview) -> None:
    reading, stopping = open_side("source", count=2, fault=fault("stall"), devices=[{}, {"stop_time": 600}])
    reading.stop()
    blocked = [Blocked(lambda: read_all(reading, buffer)), Blocked(stopping.stop)]
    os.kill(reading.process.pid, signal.SIGKILL)
    for call in blocked:
        assert str(call.ended()) == "the device process ended (killed by signal 9)"


def test_a_stalled_read_has_a_time_limit(open_side: OpenSide, buffer: memoryview) -> None:
    (device,) = open_side("source", fault=fault("stall"), time_limit=1.0)
    device.save_setup()
    device.stop()
    with pytest.raises(DeviceError, match=r"the device's read did not return within 1 s"):
        read_all(device, buffer)


def test_a_stalled_write_has_a_time_limit(open_side: OpenSide, tiny_chunks: list[bytes]) -> None:
    (device,) = open_side("destination", fault=fault("stall", "destination"), time_limit=1.0)
    device.load_setup(b"")
    with pytest.raises(DeviceError, match=r"the device's write did not return within 1 s"):
        device.load_state(memoryview(b"".join(tiny_chunks)))


def test_a_request_has_a_time_limit(open_side: OpenSide) -> None:
    with as_a_user_does():  # its parent must be this process, to be told when it stands
        (device,) = open_side("source", time_limit=1.0)
    device.save_setup()
    os.kill(device.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, device.process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        with pytest.raises(DeviceError, match=r"the device did not answer 'set-state' within 1 s"):
            device.stop()
    finally:
        os.kill(device.process.pid, signal.SIGCONT)


def test_a_fault_touches_its_own_side_and_device_only(open_side: OpenSide, save: Saver) -> None:
    first, second = open_side("source", count=2, fault=fault("error", "destination"))
    assert len(b"".join(save(first))) == len(b"".join(save(second))) == 4 * CHUNK
    first, second = open_side("source", count=2, fault=fault("error", device=1))
    assert len(b"".join(save(first))) == 4 * CHUNK
    with pytest.raises(DeviceError, match="the read failed"):
        save(second)
