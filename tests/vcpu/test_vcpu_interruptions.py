"""Where the kernel says EINTR: KVM_RUN gives it back on every Python, any other ioctl is made again."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping

import pytest

from migpool.device import DeviceError
from migpool_plugins.ioctl import ioctl, ioctl_once
from migpool_plugins.vcpu import backend
from migpool_plugins.vcpu.backend import choose_backend
from migpool_plugins.vcpu.kvm_machine import KvmVcpu
from migpool_plugins.vfio.kernel.abi import Calls
from tests.support.making_vcpus import MakeVcpus


@pytest.mark.usefixtures("kvm")
def test_a_vcpu_runs_where_python_makes_interrupted_calls_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As fcntl does from Python 3.14 on; here it ends after a hundred times."""
    real = fcntl.ioctl

    def repeating(fd: int, number: int, argument: int | bytearray = 0) -> int:
        for _ in range(100):
            try:
                return real(fd, number, argument)
            except InterruptedError:
                continue
        pytest.fail("it would be made again for ever")

    monkeypatch.setattr(fcntl, "ioctl", repeating)
    choose_backend("kvm")


@pytest.mark.parametrize("call", [ioctl, Calls().ioctl])
def test_an_interrupted_ioctl_is_made_again(monkeypatch: pytest.MonkeyPatch, call: object) -> None:
    assert callable(call)
    answers: list[int | InterruptedError] = [
        InterruptedError(errno.EINTR, "a signal"),
        InterruptedError(errno.EINTR, "a signal"),
        7,
    ]

    def interrupted(*_: object) -> int:
        answer = answers.pop(0)
        if isinstance(answer, int):
            return answer
        raise answer

    monkeypatch.setattr(fcntl, "ioctl", interrupted)
    assert call(3, 0xAE00, 0) == 7
    assert answers == []


def test_an_ioctl_made_once_says_what_the_kernel_said() -> None:
    outlet, inlet = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)) as refused:
            ioctl_once(outlet, 0xAE80)
        assert refused.value.errno == errno.ENOTTY
    finally:
        os.close(outlet)
        os.close(inlet)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        ioctl_once(outlet, 0xAE80)


def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a guest that is booted never comes to the end of its first batch."""
    boot = KvmVcpu.boot

    def boot_endless(self: KvmVcpu, registers: Mapping[str, int]) -> None:
        boot(self, {**registers, "r10": 1 << 63})

    monkeypatch.setattr(KvmVcpu, "boot", boot_endless)
    monkeypatch.setattr(backend, "_TRIAL_LIMIT", 0.25)


@pytest.mark.usefixtures("kvm")
def test_auto_takes_unicorn_where_kvm_never_comes_back(
    unicorn: str, make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless(monkeypatch)
    assert make_vcpus("source", "auto", count=1)[0].note == unicorn.capitalize()


@pytest.mark.usefixtures("kvm")
def test_kvm_asked_for_by_name_is_refused_where_it_never_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    endless(monkeypatch)
    with pytest.raises(DeviceError, match=r"^KVM does not work: its vCPU has not come back within 0.25 s$"):
        choose_backend("kvm")
