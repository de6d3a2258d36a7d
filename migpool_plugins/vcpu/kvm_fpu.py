"""The x87, SSE and AVX registers under KVM: the XSAVE area, taken apart into what it consists of.

The area is laid out as the processor has it: the first 512 bytes are FXSAVE's, a header of 64 says which components are
in use, then each component has its place. The halves of the AVX registers that SSE does not have come first there, at
the same place on every processor; where the others lie, the processor's CPUID says, so they travel as they are.
A host whose KVM has no XSAVE has the same x87 and SSE registers by KVM_GET_FPU, all but MXCSR: the kernel has a place
for it there and leaves it out. So it is taken to be as after a reset, and a state in which it is not is refused there.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.kvm_host import KvmHost
from migpool_plugins.vcpu.kvm_part import Part, Sets
from migpool_plugins.vcpu.register_sets import FPU, RegisterFormat

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
_X87_AND_SSE: Final = 3
_MXCSR_RESET: Final = 0x1F80


class Fpu(Part):
    """The whole area, or the x87 and SSE registers alone on a host without XSAVE."""

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

    def blank(self) -> dict[str, bytes]:
        if not self._xsave:
            return {"fpu": bytes(FPU.struct.size)}
        found = super().blank()
        if self._size > kvm_abi.XSAVE.size:
            found["xsave_large"] = bytes(self._size - kvm_abi.XSAVE.size)
        else:
            del found["xsave_large"]
        return found


def _read_fpu(fd: int) -> bytes:
    """Read the registers by KVM_GET_FPU, and lay them out as FXSAVE does."""
    buffer = bytearray(kvm_abi.FPU.size)
    kvm_abi.call(fd, kvm_abi.GET_FPU, buffer)
    stack, fcw, fsw, ftw, fop, fip, fdp, xmm, _mxcsr = kvm_abi.FPU.unpack(buffer)
    return _FXSAVE.pack(fcw, fsw, ftw, fop, fip, fdp, _MXCSR_RESET, stack, xmm)


def _write_fpu(fd: int, data: bytes) -> None:
    fcw, fsw, ftw, fop, fip, fdp, mxcsr, stack, xmm = _FXSAVE.unpack(data)
    kvm_abi.call(fd, kvm_abi.SET_FPU, bytearray(kvm_abi.FPU.pack(stack, fcw, fsw, ftw, fop, fip, fdp, xmm, mxcsr)))


_FXSAVE: Final = Struct("<HHBxHQQI4x128s256s")
