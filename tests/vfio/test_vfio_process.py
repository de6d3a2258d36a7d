"""The device process: what it loads, that it ends with its devices, and that it never outlives its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import migpool_plugins
from migpool.device import DeviceContext, DeviceError
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.emulated import EmulatedVfioDevice
from tests.support.vfio.vfio_rig import LIMIT, OpenSide, process_ended

ROOT = Path(migpool_plugins.__file__).parents[1]

PARENT = """
import os, signal, sys
sys.path.append(sys.argv[1])
from migpool.device import DeviceContext
from migpool_plugins.vfio import devices
made = devices(DeviceContext("source", {"profile": "tiny", "fault": {"at": 0, "kind": "stall"}}, 2))
for device in made:
    device.save_setup()
    device.stop()
print(made[0].process.pid, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_process_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        device_process = os.pidfd_open(int(parent.stdout.readline()))
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.wait(LIMIT) == -9
        assert process_ended(device_process)


def test_nothing_is_left_after_fifty_devices_were_opened_used_and_closed(buffer: memoryview) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def use_once() -> int:
        (device,) = devices(DeviceContext("source", {"profile": "tiny"}))
        assert isinstance(device, EmulatedVfioDevice)
        device.save_setup()
        device.stop()
        device.save_state(buffer)
        device.close()
        return device.process.pid

    use_once()
    before = (descriptors(), threading.active_count())
    pids = [use_once() for _ in range(50)]
    assert (descriptors(), threading.active_count()) == before
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_the_process_lives_until_the_last_device_is_closed(open_side: OpenSide) -> None:
    first, second = open_side("source", count=2)
    pidfd = os.pidfd_open(first.process.pid)
    assert first.process.pid == second.process.pid
    first.close()
    second.save_setup()
    second.close()
    assert process_ended(pidfd)


def test_the_process_loads_nothing_but_the_standard_library_and_itself() -> None:
    program = (
        "import sys; sys.path.append(sys.argv[1]); from migpool_plugins.vfio.server import main; "
        "print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'})"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    assert set(loaded.stdout.split()) == {"migpool_plugins"}


def test_a_python_that_cannot_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(DeviceError, match=r"the device process cannot be started: .*No such file"):
        devices(DeviceContext("source", {"profile": "tiny"}))
