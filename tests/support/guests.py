"""Guests for tests: both ends of one, and which backends there are here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from migpool.core.machine import Machine
from migpool.core.trace import Tracer
from migpool.device import Device, DeviceContext, DeviceError, OptionValue
from migpool.migration.destination import Destination
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from migpool.transport.address import Address
from migpool_plugins.guest import devices
from migpool_plugins.guest.device import GuestGroup, GuestVcpu
from migpool_plugins.vcpu.backend import choose_backend

OPTIONS: dict[str, dict[str, OptionValue]] = {
    "kvm": {"backend": "kvm", "memory": "16MiB", "rate": 4000},
    "unicorn": {"backend": "unicorn", "memory": "16MiB", "rate": 200},
}


def need(backend: str) -> None:
    """Skip a test whose backend does not work here."""
    try:
        choose_backend(backend)  # type: ignore[arg-type]
    except DeviceError as error:
        pytest.skip(str(error))


@contextmanager
def guest(side: str, backend: str, count: int = 2, seed: int = 1, /, **options: OptionValue) -> Iterator[list[Device]]:
    """The guest's devices, closed afterwards in the machine's way."""
    need(backend)
    made = devices(DeviceContext(side, {**OPTIONS[backend], **options}, count, seed))  # type: ignore[arg-type]
    try:
        yield list(made)
    finally:
        for device in reversed(made):
            device.close()


def group_of(made: list[Device]) -> GuestGroup:
    vcpu = made[1]
    assert isinstance(vcpu, GuestVcpu)
    return vcpu.group


def steps(made: list[Device]) -> list[int]:
    """How many steps each vCPU has done; they stand."""
    group = group_of(made)
    with group.paused():
        return [vcpu.steps() for vcpu in made[1:] if isinstance(vcpu, GuestVcpu)]


SETTINGS = Settings(channels=2, chunk=64 * 1024, budget=1 << 20, peer_limit=10, connect_limit=30, accept_limit=30)


@contextmanager
def ends_for(side: str, backend: str) -> Iterator[Machine]:
    """A machine of one guest."""
    with guest(side, backend) as made:
        yield Machine("guest", made)


def run_end(
    side: str,
    machine: Machine,
    path: str,
    tracer: Tracer | None = None,
    watch: Callable[[State], None] | None = None,
    listening: Callable[[Address], None] | None = None,
) -> SideReport:
    """Run one end of a migration, over a UNIX socket."""
    where = Address(path=path)
    if side == "source":
        return Source(machine, SETTINGS, PoolScheduler(), tracer=tracer, watch=watch).run(where)
    end = Destination(machine, SETTINGS, ReceiverScheduler(), tracer=tracer, watch=watch, listening=listening)
    return end.run(where)
