"""The guest on Unicorn: every engine maps the same memory of this process."""

from __future__ import annotations

from functools import partial

from migpool_plugins.guest.layout import ADDRESS, OUT_BY_HALT
from migpool_plugins.guest.machines import GuestMachine
from migpool_plugins.ram.hook_log import Hook, HookDirtyLog
from migpool_plugins.ram.memory import GuestMemory
from migpool_plugins.vcpu.unicorn_machine import UnicornMachine, UnicornVcpu, unicorn

__all__ = ["unicorn_guest"]


class _Writes:
    """The writes of one vCPU; see :class:`~migpool_plugins.ram.hook_log.Hookable`."""

    def __init__(self, vcpu: UnicornVcpu) -> None:
        self._vcpu = vcpu
        self._handle: int | None = None

    def watch_writes(self, hook: Hook, begin: int, end: int) -> None:
        def called(_engine: object, _access: int, address: int, _size: int, _value: int, _data: object) -> None:
            hook(address)

        self._handle = self._vcpu.engine.hook_add(unicorn.UC_HOOK_MEM_WRITE, called, None, begin, end)

    def unwatch_writes(self) -> None:
        if self._handle is not None:
            self._vcpu.engine.hook_del(self._handle)
            self._handle = None


def unicorn_guest(vcpus: int, memory: GuestMemory) -> GuestMachine:
    """Make the VM.

    Raises:
        DeviceError: Unicorn is too old or cannot make an engine.
    """
    machine = UnicornMachine(vcpus)
    for vcpu in machine.vcpus:
        vcpu.engine.mem_map_ptr(ADDRESS, len(memory), unicorn.UC_PROT_ALL, memory.address)
        vcpu.halts_at = ADDRESS + OUT_BY_HALT
    writes = [_Writes(vcpu) for vcpu in machine.vcpus]
    return GuestMachine(machine, OUT_BY_HALT, 64, partial(HookDirtyLog, writes, ADDRESS, len(memory)))
