"""The parts of a vCPU's state under KVM, as a table: what migrates, and in which order it is read and loaded.

A part more is an entry more. CPUID comes before everything: it is the machine's, set when the vCPU is made, and
decides what the kernel accepts in all that follows. Then the parts are **loaded** in the order of the table:

1. ``tsc``: how fast the time stamp counter runs, before the counter itself (which is among the MSRs) is set.
2. ``sregs``: EFER, CR0 and CR4 decide what the kernel accepts later, CR4.OSXSAVE among them, and APIC_BASE says in
   which mode the local APIC's registers are.
3. ``regs``: writing them drops a pending exception, so ``vcpu_events`` must come later.
4. ``xcrs`` before ``fpu``: XCR0 says which components of the XSAVE area are the guest's.
5. ``lapic`` before ``msrs``: the deadline of its timer is an MSR, which is dropped unless the APIC is in that mode.
6. ``msrs``: the time stamp counter first and the timer's deadline last, since it is counted from the former. The
   guest's time stands still during the downtime and goes on.
7. ``mp_state`` before ``vcpu_events``: a vCPU that is told to wait for its start would forget its events.
8. ``debugregs`` last: DR6 and DR7 are written by a pending debug exception too.

They are **read** with ``mp_state`` first, since reading that lets the kernel act on a pending INIT or SIPI, and
``vcpu_events`` second, since a kernel that does not keep an exception's payload apart delivers it into DR6 or CR2 then.

There is no nested state in the table: the CPU that the guest sees has neither VMX nor SVM (``cpu_model.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.kvm_host import KvmHost
from migpool_plugins.vcpu.kvm_msrs import Msrs
from migpool_plugins.vcpu.kvm_part import Part, Whole
from migpool_plugins.vcpu.state import FPU, REGS, SREGS, RegisterFormat, Sets

_PDPTRS: Final = RegisterFormat("pdptrs", Struct("<5Q"), ("flags", *(f"pdptr_{n}" for n in range(4))), optional=True)
_TSC: Final = RegisterFormat("tsc", Struct("<I"), ("khz",), optional=True)
_XCRS: Final = RegisterFormat("xcrs", kvm_abi.XCRS, kvm_abi.XCRS_FIELDS, optional=True)
_LAPIC: Final = RegisterFormat("lapic", kvm_abi.LAPIC, kvm_abi.LAPIC_FIELDS, optional=True)
_MP_STATE: Final = RegisterFormat("mp_state", kvm_abi.MP_STATE, ("mp_state",), optional=True)
_EVENTS: Final = RegisterFormat("vcpu_events", kvm_abi.VCPU_EVENTS, kvm_abi.VCPU_EVENTS_FIELDS, optional=True)
_DEBUG: Final = RegisterFormat("debugregs", kvm_abi.DEBUGREGS, kvm_abi.DEBUGREGS_FIELDS, optional=True)

READ_FIRST: Final = ("mp_state", "vcpu_events")
_X87_ONLY: Final = 1
_SVR_ENABLED: Final = 1 << 8
_DR7_ENABLES: Final = 0xFF

_HEADER: Final = RegisterFormat("xsave_header", Struct("<QQ"), ("xstate_bv", "xcomp_bv"), optional=True)
_AVX: Final = RegisterFormat(
    "avx", Struct("<32Q"), tuple(f"ymm{n}_upper_{half}" for n in range(16) for half in ("low", "high")), optional=True
)
_COMPONENTS: Final = RegisterFormat("xsave_components", Struct("3264s"), ("area",), optional=True)
_LARGE: Final = RegisterFormat("xsave_large", Struct("<Q"), ("word",), optional=True, repeats=True)
"""What lies beyond the 4096 bytes that every KVM with XSAVE has, such as AMX's tiles."""

_PLACES: Final = {
    "fpu": slice(0, 416),
    "xsave_header": slice(512, 528),
    "avx": slice(576, 832),
    "xsave_components": slice(832, 4096),
}
_FXSAVE: Final = Struct("<HHBxHQQI4x128s256s")
_X87_AND_SSE: Final = 3
_MXCSR_RESET: Final = 0x1F80


def vcpu_parts(host: KvmHost, msrs: Sequence[int]) -> tuple[Part, ...]:
    """Return the parts of a host, with the MSRs that it reads and writes, in the order in which they are loaded."""
    return (
        Tsc(host.without("KVM_CAP_GET_TSC_KHZ")),
        SpecialRegisters(pdptrs="KVM_CAP_SREGS2" in host.has),
        Whole(REGS, kvm_abi.GET_REGS, kvm_abi.SET_REGS),
        Whole(
            _XCRS,
            kvm_abi.GET_XCRS,
            kvm_abi.SET_XCRS,
            lacking=host.without("KVM_CAP_XCRS"),
            idle=lambda values: values["nr_xcrs"] == 0 or values["value_0"] == _X87_ONLY,
        ),
        Fpu(host),
        Whole(
            _LAPIC,
            kvm_abi.GET_LAPIC,
            kvm_abi.SET_LAPIC,
            lacking=host.without("KVM_CAP_IRQCHIP"),
            idle=lambda values: not values["svr"] & _SVR_ENABLED,
            passing=("current_count",),
        ),
        Msrs(msrs),
        Whole(
            _MP_STATE,
            kvm_abi.GET_MP_STATE,
            kvm_abi.SET_MP_STATE,
            lacking=host.without("KVM_CAP_MP_STATE"),
            idle=lambda values: values["mp_state"] == kvm_abi.MP_STATE_RUNNABLE,
        ),
        Events(host),
        Whole(
            _DEBUG,
            kvm_abi.GET_DEBUGREGS,
            kvm_abi.SET_DEBUGREGS,
            lacking=host.without("KVM_CAP_DEBUGREGS"),
            idle=lambda values: not values["dr7"] & _DR7_ENABLES and not any(values[f"db{n}"] for n in range(4)),
        ),
    )


class Tsc(Part):
    """How fast the time stamp counter runs. The counter itself is an MSR."""

    def __init__(self, lacking: str) -> None:
        super().__init__("the time stamp counter's speed", [_TSC], lacking)

    def read(self, fd: int) -> dict[str, bytes]:
        return {"tsc": _TSC.struct.pack(kvm_abi.call(fd, kvm_abi.GET_TSC_KHZ))}

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        (wanted,) = _TSC.struct.unpack(sets["tsc"])
        here = kvm_abi.call(fd, kvm_abi.GET_TSC_KHZ)
        if wanted != here:
            try:
                kvm_abi.call(fd, kvm_abi.SET_TSC_KHZ, wanted)
            except DeviceError as refused:
                raise DeviceError(
                    f"the guest's time stamp counter runs at {wanted} kHz, this host's at {here} and KVM cannot change "
                    f"that ({refused.message}): migrate to a host of the same speed, or one that can scale it"
                ) from refused
        return ()


class SpecialRegisters(Part):
    """Segments, descriptor tables and control registers; with KVM_GET_SREGS2 also the PDPTRs of 32-bit PAE paging.

    The bitmap at the end of the older structure does not travel: a pending interrupt is among the events.
    """

    def __init__(self, *, pdptrs: bool) -> None:
        super().__init__("sregs", [SREGS, _PDPTRS])
        self._pdptrs = pdptrs
        self._get = kvm_abi.GET_SREGS2 if pdptrs else kvm_abi.GET_SREGS
        self._put = kvm_abi.SET_SREGS2 if pdptrs else kvm_abi.SET_SREGS

    def read(self, fd: int) -> dict[str, bytes]:
        buffer = bytearray(self._get.size)
        kvm_abi.call(fd, self._get, buffer)
        base, rest = bytes(buffer[: SREGS.struct.size]), bytes(buffer[SREGS.struct.size :])
        return {"sregs": base, "pdptrs": rest} if self._pdptrs else {"sregs": base}

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        pdptrs = sets.get("pdptrs", b"")
        if pdptrs and not self._pdptrs:
            if not _PDPTRS.values(pdptrs)["flags"]:
                return self.write(fd, {"sregs": sets["sregs"]})
            raise DeviceError(
                "the guest uses PDPTRs, which KVM on this host cannot load: it lacks KVM_CAP_SREGS2; "
                "migrate to a host that has it"
            )
        kvm_abi.call(fd, self._put, bytearray((sets["sregs"] + pdptrs).ljust(self._put.size, b"\0")))
        return ()


class Fpu(Part):
    """The x87, SSE and AVX registers: the XSAVE area, taken apart into what it consists of.

    The area is laid out as the processor has it: the first 512 bytes are FXSAVE's, a header of 64 says which components
    are in use, then each component has its place. The halves of the AVX registers that SSE does not have come first
    there, at the same place on every processor; where the others lie, the processor's CPUID says, so they travel as
    they are.

    A host whose KVM has no XSAVE has the same x87 and SSE registers by KVM_GET_FPU, all but MXCSR: the kernel has a
    place for it there and leaves it out. So it is taken to be as after a reset, and a state in which it is not is
    refused there.
    """

    def __init__(self, host: KvmHost) -> None:
        super().__init__("fpu", [FPU, _HEADER, _AVX, _COMPONENTS, _LARGE])
        self._xsave = "KVM_CAP_XSAVE" in host.has
        self._get = kvm_abi.GET_XSAVE2 if "KVM_CAP_XSAVE2" in host.has else kvm_abi.GET_XSAVE
        self._size = host.xsave_size

    def read(self, fd: int) -> dict[str, bytes]:
        if not self._xsave:
            return {"fpu": _read_fpu(fd)}
        area = bytearray(self._size)
        kvm_abi.call(fd, self._get, area)
        found = {name: bytes(area[place]) for name, place in _PLACES.items()}
        if self._size > kvm_abi.XSAVE.size:
            found["xsave_large"] = bytes(area[kvm_abi.XSAVE.size :])
        return found

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        header = sets.get("xsave_header", _HEADER.struct.pack(_X87_AND_SSE, 0))
        if not self._xsave:
            in_use = _HEADER.values(header)["xstate_bv"]
            if in_use & ~_X87_AND_SSE:
                raise DeviceError(
                    f"the guest uses the XSAVE components {in_use:#x}, which KVM on this host cannot load: "
                    "it lacks KVM_CAP_XSAVE; migrate to a host that has it"
                )
            mxcsr = FPU.values(sets["fpu"])["mxcsr"]
            if mxcsr != _MXCSR_RESET:
                raise DeviceError(
                    f"the guest has MXCSR at {mxcsr:#x}, which KVM on this host cannot load: it lacks KVM_CAP_XSAVE; "
                    "migrate to a host that has it"
                )
            _write_fpu(fd, sets["fpu"])
            return ()
        area = bytearray(self._size)
        for name, data in {**sets, "xsave_header": header}.items():
            if name != "xsave_large":
                area[_PLACES[name]] = data
        large = sets.get("xsave_large", b"").rstrip(b"\0")
        room = self._size - kvm_abi.XSAVE.size
        if len(large) > room:
            raise DeviceError(
                f"the guest's XSAVE area has {len(large)} bytes beyond 4096, KVM on this host takes {room}: "
                "migrate to a host with the same processor features"
            )
        area[kvm_abi.XSAVE.size : kvm_abi.XSAVE.size + len(large)] = large
        kvm_abi.call(fd, kvm_abi.SET_XSAVE, area)
        return ()


def _read_fpu(fd: int) -> bytes:
    """Read the registers by KVM_GET_FPU, and lay them out as FXSAVE does."""
    buffer = bytearray(kvm_abi.FPU.size)
    kvm_abi.call(fd, kvm_abi.GET_FPU, buffer)
    stack, fcw, fsw, ftw, fop, fip, fdp, xmm, _mxcsr = kvm_abi.FPU.unpack(buffer)
    return _FXSAVE.pack(fcw, fsw, ftw, fop, fip, fdp, _MXCSR_RESET, stack, xmm)


def _write_fpu(fd: int, data: bytes) -> None:
    fcw, fsw, ftw, fop, fip, fdp, mxcsr, stack, xmm = _FXSAVE.unpack(data)
    kvm_abi.call(fd, kvm_abi.SET_FPU, bytearray(kvm_abi.FPU.pack(stack, fcw, fsw, ftw, fop, fip, fdp, xmm, mxcsr)))


class Events(Whole):
    """Exceptions, interrupts, NMIs and SMIs that are pending or being delivered, and a pending triple fault.

    Flags say which of them the source's kernel knew. One that this host's kernel does not know is taken back if what it
    speaks of is not there.
    """

    def __init__(self, host: KvmHost) -> None:
        super().__init__(
            _EVENTS,
            kvm_abi.GET_VCPU_EVENTS,
            kvm_abi.SET_VCPU_EVENTS,
            lacking=host.without("KVM_CAP_VCPU_EVENTS"),
            idle=lambda values: not any(value for name, value in values.items() if name != "flags"),
        )
        self._host = host

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        values = _EVENTS.values(sets[self.name])
        self._take_back(values, "KVM_CAP_EXCEPTION_PAYLOAD", kvm_abi.VCPUEVENT_VALID_PAYLOAD, "exception_pending")
        self._take_back(
            values, "KVM_CAP_X86_TRIPLE_FAULT_EVENT", kvm_abi.VCPUEVENT_VALID_TRIPLE_FAULT, "triple_fault_pending"
        )
        return super().write(fd, {self.name: _EVENTS.struct.pack(*values.values())})

    def _take_back(self, values: dict[str, int], capability: str, flag: int, what: str) -> None:
        if not values["flags"] & flag or capability in self._host.has:
            return
        if values[what]:
            raise DeviceError(
                f"the vCPU has {what.replace('_', ' ')}, which KVM on this host cannot load: it lacks {capability}; "
                "migrate to a host that has it"
            )
        values["flags"] &= ~flag
