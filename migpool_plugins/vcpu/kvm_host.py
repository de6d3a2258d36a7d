"""What KVM on this host can do: asked once for each VM, so that everything else need not try and fail.

A kernel, or a hypervisor below it, may lack any part of the interface. What must be there is refused here, in one line;
what may be missing is said in :attr:`KvmHost.lacks` and left out of the state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi

_REQUIRED: Final = ("KVM_CAP_USER_MEMORY", "KVM_CAP_IMMEDIATE_EXIT")
_OPTIONAL: Final = (
    *("KVM_CAP_XSAVE", "KVM_CAP_XCRS", "KVM_CAP_MP_STATE", "KVM_CAP_VCPU_EVENTS", "KVM_CAP_DEBUGREGS"),
    *("KVM_CAP_GET_TSC_KHZ", "KVM_CAP_SREGS2", "KVM_CAP_EXCEPTION_PAYLOAD", "KVM_CAP_X86_TRIPLE_FAULT_EVENT"),
    *("KVM_CAP_IRQCHIP", "KVM_CAP_PIT2", "KVM_CAP_PIT_STATE2", "KVM_CAP_ADJUST_CLOCK"),
)
_ENABLED: Final = ("KVM_CAP_EXCEPTION_PAYLOAD", "KVM_CAP_X86_TRIPLE_FAULT_EVENT")
"""What the kernel must be told that we understand: pending exceptions as they are, not as if already delivered."""


@dataclass(frozen=True, slots=True)
class KvmHost:
    """What a VM on this host has.

    Arguments:
        has: names of the capabilities that are there, as the kernel's headers have them.
        xsave_size: bytes of the area that KVM_GET_XSAVE2 (or KVM_GET_XSAVE) fills; at least 4096.
        lacks: what is missing of a whole machine, in words, in the order in which it was found.
    """

    has: frozenset[str]
    xsave_size: int
    lacks: tuple[str, ...]

    def without(self, capability: str) -> str:
        """Return the capability's name if this host lacks it, else nothing."""
        return "" if capability in self.has else capability


def check_kvm(kvm: int, count: int) -> None:
    """Refuse a host that cannot run the guest at all.

    Arguments:
        kvm: the descriptor of /dev/kvm.
        count: how many vCPUs the VM is to have.

    Raises:
        DeviceError: one line with what is missing.
    """
    version = kvm_abi.call(kvm, kvm_abi.GET_API_VERSION)
    if version != kvm_abi.API_VERSION:
        raise DeviceError(f"KVM's interface has version {version}, not {kvm_abi.API_VERSION}: use another kernel")
    for name in _REQUIRED:
        if not kvm_abi.extension(kvm, name):
            raise DeviceError(f"this kernel's KVM lacks {name}: use the Unicorn backend")
    most = kvm_abi.extension(kvm, "KVM_CAP_MAX_VCPUS") or 4
    if count > most:
        raise DeviceError(f"KVM on this host allows {most} vCPUs in a VM, {count} are asked for")


def equip(kvm: int, vm: int) -> KvmHost:
    """Give a new VM its interrupt controllers and timer, and say what it has. Must come before its first vCPU.

    The kernel makes a local APIC with each vCPU only if the VM has the other interrupt controllers by then. What the
    kernel refuses is left out, since the guest needs none of it.

    Arguments:
        kvm: the descriptor of /dev/kvm.
        vm: the descriptor of the VM.
    """
    asked = vm if kvm_abi.extension(kvm, "KVM_CAP_CHECK_EXTENSION_VM") else kvm
    has = {name for name in _OPTIONAL if kvm_abi.extension(asked, name)}
    lacks = [name for name in _OPTIONAL if name not in has]

    def attempt(name: str, call: Callable[[], object]) -> None:
        """Leave out what the kernel refuses after all."""
        try:
            call()
        except DeviceError as refused:
            has.discard(name)
            lacks.append(f"{name} ({refused.message})")

    for name in _ENABLED:
        if name in has:
            attempt(name, partial(kvm_abi.enable, vm, name, 1))
    if "KVM_CAP_IRQCHIP" in has:
        attempt("KVM_CAP_IRQCHIP", lambda: kvm_abi.call(vm, kvm_abi.CREATE_IRQCHIP))
    if "KVM_CAP_IRQCHIP" not in has:
        # The timer's interrupt would have nowhere to go: the kernel makes no PIT without the controllers.
        has -= {"KVM_CAP_PIT2", "KVM_CAP_PIT_STATE2"}
    elif "KVM_CAP_PIT2" in has:
        attempt("KVM_CAP_PIT2", lambda: kvm_abi.call(vm, kvm_abi.CREATE_PIT2, bytearray(kvm_abi.PIT_CONFIG.size)))
    if "KVM_CAP_PIT2" not in has:
        has.discard("KVM_CAP_PIT_STATE2")
    size = kvm_abi.extension(asked, "KVM_CAP_XSAVE2") if "KVM_CAP_XSAVE" in has else 0
    if size:
        has.add("KVM_CAP_XSAVE2")
    return KvmHost(frozenset(has), max(size, kvm_abi.XSAVE.size), tuple(lacks))


def add_dirty_rings(vm: int, size: int) -> None:
    """Give each vCPU of a new VM a ring of the pages that it writes. Must come before its first vCPU.

    The VM has no dirty bitmap then. On x86, which keeps the order of stores, the plain capability is as good as
    KVM_CAP_DIRTY_LOG_RING_ACQ_REL, and older kernels have it too.

    Arguments:
        vm: the descriptor of the VM.
        size: of each ring, in bytes; a power of two.

    Raises:
        DeviceError: the host has no such rings, or none of this size.
    """
    most = kvm_abi.extension(vm, "KVM_CAP_DIRTY_LOG_RING")
    if not most:
        raise DeviceError('KVM on this host lacks KVM_CAP_DIRTY_LOG_RING: set dirty_log = "bitmap"')
    if size > most:
        raise DeviceError(f"KVM on this host has dirty rings of {most} bytes at most, {size} are asked for")
    kvm_abi.enable(vm, "KVM_CAP_DIRTY_LOG_RING", size)
