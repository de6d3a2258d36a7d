"""What the tests of vCPUs share: which backends this host has, and the type of the fixture that makes devices."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Protocol

from migpool.device import OptionValue, Side
from migpool_plugins.vcpu.device import VcpuDevice


class MakeVcpus(Protocol):
    """Makes the vCPUs of one side; they are closed after the test."""

    def __call__(
        self, side: Side, backend: str, count: int = 2, seed: int = 7, **options: OptionValue
    ) -> list[VcpuDevice]: ...


def _without_kvm() -> str:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm cannot be opened: {error.strerror}"
    return ""


WITHOUT_KVM = _without_kvm()
WITHOUT_UNICORN = "" if importlib.util.find_spec("unicorn") else "the package unicorn is not installed"


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
