"""Both backends, machines that are always closed, and a count of what is left over."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from migpool.device import Device, DeviceContext, OptionValue, Side
from migpool_plugins.vcpu import devices
from migpool_plugins.vcpu.device import VcpuDevice
from tests.support.making_vcpus import WITHOUT_KVM, WITHOUT_UNICORN, MakeVcpus, open_files

_KVM = pytest.param("kvm", marks=pytest.mark.skipif(bool(WITHOUT_KVM), reason=WITHOUT_KVM or "KVM is there"))
_UNICORN = pytest.param(
    "unicorn", marks=pytest.mark.skipif(bool(WITHOUT_UNICORN), reason=WITHOUT_UNICORN or "Unicorn is there")
)


@pytest.fixture(params=[_KVM, _UNICORN])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that this host has."""
    return str(request.param)


@pytest.fixture(params=[_KVM])
def kvm(request: pytest.FixtureRequest) -> str:
    """KVM, where the host has it."""
    return str(request.param)


@pytest.fixture(params=[_UNICORN])
def unicorn(request: pytest.FixtureRequest) -> str:
    """Unicorn, where it is installed."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread and no descriptor outlives a test."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    assert set(threading.enumerate()) <= threads
    assert open_files() <= files


@pytest.fixture
def make_vcpus() -> Iterator[MakeVcpus]:
    """Makes the devices of one side, and closes them after the test."""
    made: list[Device] = []

    def make(side: Side, backend: str, count: int = 2, seed: int = 7, **options: OptionValue) -> list[VcpuDevice]:
        found = devices(DeviceContext(side, {"backend": backend, **options}, count, seed))
        made.extend(found)
        return [device for device in found if isinstance(device, VcpuDevice)]

    yield make
    for device in made:
        device.close()
