"""``abort`` from another thread ends every call that blocks, and ``resume`` takes it back."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from migpool.device import DeviceError, OptionValue
from migpool_plugins.vfio.emulated import EmulatedVfioDevice
from tests.support.vfio.vfio_rig import Blocked, OpenSide, Saver

FOREVER = 600.0


@dataclass(frozen=True, slots=True)
class Rig:
    """What is needed to get a device into a blocking call."""

    open_side: OpenSide
    save: Saver
    buffer: memoryview


@pytest.fixture
def rig(open_side: OpenSide, save: Saver, buffer: memoryview) -> Rig:
    return Rig(open_side, save, buffer)


def stalled_read(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (device,) = rig.open_side("source", fault={"at": 0, "kind": "stall"})
    device.stop()
    return device, Blocked(lambda: device.save_state(rig.buffer))


def slow_read(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (device,) = rig.open_side("source", read_latency=FOREVER)
    device.stop()
    return device, Blocked(lambda: device.save_state(rig.buffer))


def stalled_write(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (device,) = rig.open_side("destination", fault={"at": 0, "kind": "stall", "side": "destination"})
    device.load_setup(b"")
    return device, Blocked(functools.partial(device.load_state, rig.buffer[:1000]))


def slow_write(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (device,) = rig.open_side("destination", write_latency=FOREVER, shared_lock="write")
    device.load_setup(b"")
    return device, Blocked(functools.partial(device.load_state, rig.buffer[:1000]))


def write_to_a_process_that_does_not_read(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (device,) = rig.open_side("destination", size="1MiB")
    device.load_setup(b"")
    os.kill(device.process.pid, signal.SIGSTOP)
    return device, Blocked(functools.partial(device.load_state, rig.buffer))


def stop(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (device,) = rig.open_side("source", stop_time=FOREVER)
    return device, Blocked(device.stop)


def save_config(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (device,) = rig.open_side("source", save_config_time=FOREVER)
    rig.save(device)
    return device, Blocked(device.save_config)


def load_config(rig: Rig) -> tuple[EmulatedVfioDevice, Blocked]:
    (source,) = rig.open_side("source")
    (device,) = rig.open_side("destination", load_config_time=FOREVER)
    device.load_setup(b"")
    for chunk in rig.save(source):
        device.load_state(memoryview(chunk))
    return device, Blocked(functools.partial(device.load_config, source.save_config()))


BLOCKING = [
    stalled_read,
    slow_read,
    stalled_write,
    slow_write,
    write_to_a_process_that_does_not_read,
    stop,
    save_config,
    load_config,
]


@pytest.mark.parametrize("block", BLOCKING, ids=[block.__name__ for block in BLOCKING])
def test_abort_ends_the_call_at_once_and_later_ones_fail(
    block: Callable[[Rig], tuple[EmulatedVfioDevice, Blocked]], rig: Rig
) -> None:
    device, blocked = block(rig)
    device.abort()
    device.abort()
    error = blocked.ended()
    os.kill(device.process.pid, signal.SIGCONT)
    assert isinstance(error, DeviceError)
    assert str(error) == "the device's work was aborted"
    with pytest.raises(DeviceError, match="aborted"):
        device.save_state(rig.buffer)
    with pytest.raises(DeviceError, match="aborted"):
        device.save_config()


@pytest.mark.parametrize(
    "options", [{}, {"pollable": True}, {"shared_lock": "both"}], ids=["plain", "pollable", "lock"]
)
def test_an_aborted_source_can_be_resumed_and_saved_again(
    options: dict[str, OptionValue], open_side: OpenSide, save: Saver, buffer: memoryview, tiny_chunks: list[bytes]
) -> None:
    (device,) = open_side("source", options, fault={"at": 70000, "kind": "stall"})
    device.save_setup()
    device.stop()
    reading = Blocked(lambda: [device.save_state(buffer) for _ in range(3)])
    device.abort()
    assert isinstance(reading.ended(), DeviceError)
    device.resume()
    device.save_setup()
    assert save(device) == tiny_chunks


def test_resume_after_an_aborted_stop_waits_for_the_stop(
    open_side: OpenSide, save: Saver, tiny_chunks: list[bytes]
) -> None:
    (device,) = open_side("source", stop_time="200ms")
    stopping = Blocked(device.stop)
    device.abort()
    assert isinstance(stopping.ended(), DeviceError)
    device.resume()
    assert save(device) == tiny_chunks


def test_one_blocked_device_does_not_hold_up_another(open_side: OpenSide, save: Saver, buffer: memoryview) -> None:
    stopping, reading, free = open_side("source", count=3, devices=[{"stop_time": FOREVER}, {"read_latency": FOREVER}])
    reading.stop()
    blocked = [Blocked(stopping.stop), Blocked(lambda: reading.save_state(buffer))]
    assert len(save(free)) == 4
    for device, call in zip((stopping, reading), blocked, strict=True):
        device.abort()
        assert isinstance(call.ended(), DeviceError)


def test_abort_and_close_are_harmless_in_any_order(open_side: OpenSide) -> None:
    first, second = open_side("source", count=2)
    first.abort()
    first.close()
    second.close()
    for device in (first, second):
        device.close()
        device.abort()
        with pytest.raises(DeviceError, match="closed"):
            device.stop()
