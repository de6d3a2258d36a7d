"""What KVM on this host can do: asked once for each VM, so that everything else need not try and fail.

A kernel, or a hypervisor below it, may lack any part of the interface. What must be there is refused here, in one line;
what may be missing is said in :attr:`KvmHost.lacks` and left out of the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi

_REQUIRED: Final = {
    "KVM_CAP_USER_MEMORY": kvm_abi.CAP_USER_MEMORY,
    "KVM_CAP_IMMEDIATE_EXIT": kvm_abi.CAP_IMMEDIATE_EXIT,
}
_OPTIONAL: Final = {
    "KVM_CAP_XSAVE": kvm_abi.CAP_XSAVE,
    "KVM_CAP_XCRS": kvm_abi.CAP_XCRS,
    "KVM_CAP_MP_STATE": kvm_abi.CAP_MP_STATE,
    "KVM_CAP_VCPU_EVENTS": kvm_abi.CAP_VCPU_EVENTS,
    "KVM_CAP_DEBUGREGS": kvm_abi.CAP_DEBUGREGS,
    "KVM_CAP_GET_TSC_KHZ": kvm_abi.CAP_GET_TSC_KHZ,
    "KVM_CAP_SREGS2": kvm_abi.CAP_SREGS2,
    "KVM_CAP_EXCEPTION_PAYLOAD": kvm_abi.CAP_EXCEPTION_PAYLOAD,
    "KVM_CAP_X86_TRIPLE_FAULT_EVENT": kvm_abi.CAP_X86_TRIPLE_FAULT_EVENT,
    "KVM_CAP_IRQCHIP": kvm_abi.CAP_IRQCHIP,
    "KVM_CAP_PIT2": kvm_abi.CAP_PIT2,
    "KVM_CAP_PIT_STATE2": kvm_abi.CAP_PIT_STATE2,
    "KVM_CAP_ADJUST_CLOCK": kvm_abi.CAP_ADJUST_CLOCK,
}
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
    for name, number in _REQUIRED.items():
        if not kvm_abi.call(kvm, kvm_abi.CHECK_EXTENSION, number):
            raise DeviceError(f"this kernel's KVM lacks {name}: use the Unicorn backend")
    most = kvm_abi.call(kvm, kvm_abi.CHECK_EXTENSION, kvm_abi.CAP_MAX_VCPUS) or 4
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
    asked = vm if kvm_abi.call(kvm, kvm_abi.CHECK_EXTENSION, kvm_abi.CAP_CHECK_EXTENSION_VM) else kvm
    has = {name for name, number in _OPTIONAL.items() if kvm_abi.call(asked, kvm_abi.CHECK_EXTENSION, number)}
    lacks = [name for name in _OPTIONAL if name not in has]
    for name in _ENABLED:
        if name in has:
            _try(
                has, lacks, name, vm, kvm_abi.ENABLE_CAPABILITY, kvm_abi.ENABLE_CAP.pack(_OPTIONAL[name], 0, 1, 0, 0, 0)
            )
    if "KVM_CAP_IRQCHIP" in has:
        _try(has, lacks, "KVM_CAP_IRQCHIP", vm, kvm_abi.CREATE_IRQCHIP, b"")
    if "KVM_CAP_IRQCHIP" not in has:
        # The timer's interrupt would have nowhere to go: the kernel makes no PIT without the controllers.
        has -= {"KVM_CAP_PIT2", "KVM_CAP_PIT_STATE2"}
    elif "KVM_CAP_PIT2" in has:
        _try(has, lacks, "KVM_CAP_PIT2", vm, kvm_abi.CREATE_PIT2, bytes(kvm_abi.PIT_CONFIG.size))
    if "KVM_CAP_PIT2" not in has:
        has.discard("KVM_CAP_PIT_STATE2")
    size = kvm_abi.call(asked, kvm_abi.CHECK_EXTENSION, kvm_abi.CAP_XSAVE2) if "KVM_CAP_XSAVE" in has else 0
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
    most = kvm_abi.call(vm, kvm_abi.CHECK_EXTENSION, kvm_abi.CAP_DIRTY_LOG_RING)
    if not most:
        raise DeviceError('KVM on this host lacks KVM_CAP_DIRTY_LOG_RING: set dirty_log = "bitmap"')
    if size > most:
        raise DeviceError(f"KVM on this host has dirty rings of {most} bytes at most, {size} are asked for")
    asked = kvm_abi.ENABLE_CAP.pack(kvm_abi.CAP_DIRTY_LOG_RING, 0, size, 0, 0, 0)
    kvm_abi.call(vm, kvm_abi.ENABLE_CAPABILITY, bytearray(asked))


def _try(has: set[str], lacks: list[str], name: str, vm: int, request: kvm_abi.Request, argument: bytes) -> None:
    try:
        kvm_abi.call(vm, request, bytearray(argument) if argument else 0)
    except DeviceError as refused:
        has.discard(name)
        lacks.append(f"{name} ({refused.message})")
