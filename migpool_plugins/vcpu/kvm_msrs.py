"""The model-specific registers of a vCPU under KVM: all that the host itself says make up its state.

KVM_GET_MSR_INDEX_LIST names more than a given vCPU has. So each is tried when the machine is made: one that the kernel
will not read, or whose value it will not take back, is left out, and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.kvm_part import Part
from migpool_plugins.vcpu.state import RegisterFormat, Sets

MSRS: Final = RegisterFormat("msrs", kvm_abi.MSR_ENTRY, ("index", "value"), optional=True, repeats=True)
TSC: Final = 0x10
TSC_DEADLINE: Final = 0x6E0
_AT_ONCE: Final = 256
"""The most that the kernel takes in one call."""
_MOST_LISTED: Final = 4096
"""Ten times what any kernel lists. Asking again after E2BIG would need the buffer's contents after an error."""


def listed_msrs(kvm: int) -> list[int]:
    """Return the host's own list of the MSRs that make up a vCPU's state.

    Arguments:
        kvm: the descriptor of /dev/kvm.

    Raises:
        DeviceError: the kernel refused to say.
    """
    buffer = bytearray(kvm_abi.MSR_LIST_HEAD.size + 4 * _MOST_LISTED)
    kvm_abi.MSR_LIST_HEAD.pack_into(buffer, 0, _MOST_LISTED)
    kvm_abi.call(kvm, kvm_abi.GET_MSR_INDEX_LIST, buffer)
    (count,) = kvm_abi.MSR_LIST_HEAD.unpack_from(buffer)
    return [int.from_bytes(buffer[at : at + 4], "little") for at in range(4, 4 + 4 * count, 4)]


def usable_msrs(vcpu: int, listed: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return those MSRs that a vCPU which has not run reads and takes back, in the order of loading, and the others."""
    usable: list[int] = []
    refused: list[int] = []
    for index in listed:
        found = _get(vcpu, [(index, 0)])
        # Writing the counter back would set it back.
        works = bool(found) and (index == TSC or _put(vcpu, found) == 1)
        (usable if works else refused).append(index)
    return sorted(usable, key=_place), refused


def _place(index: int) -> int:
    return {TSC: 0, TSC_DEADLINE: 2}.get(index, 1)


def named(indices: Sequence[int]) -> str:
    """Return the indices in words, neighbours as ranges: ``0x34 0x480-0x491``."""
    words: list[str] = []
    begin = last = -1
    for index in [*sorted(indices), -1]:
        if begin >= 0 and index == last + 1:
            last = index
            continue
        if begin >= 0:
            words.append(f"{begin:#x}" if begin == last else f"{begin:#x}-{last:#x}")
        begin = last = index
    return " ".join(words)


class Msrs(Part):
    """Index and value of each of ``indices``, which come in the order in which they are loaded."""

    def __init__(self, indices: Sequence[int]) -> None:
        super().__init__("msrs", [MSRS])
        self._question = [(index, 0) for index in indices]

    def read(self, fd: int) -> dict[str, bytes]:
        found = _get(fd, self._question)
        if len(found) != len(self._question):
            raise DeviceError(f"KVM_GET_MSRS no longer reads MSR {self._question[len(found)][0]:#x}")
        return {"msrs": b"".join(MSRS.struct.pack(*entry) for entry in found)}

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        """Load all; one that the kernel refuses may be left out if the vCPU has that value already, or none and 0."""
        left = [(int(index), int(value)) for index, value in MSRS.struct.iter_unpack(sets["msrs"])]
        left_out: list[str] = []
        while left:
            taken = _put(fd, left)
            left = left[taken:]
            if left and taken < _AT_ONCE:
                (index, value), *left = left
                here = _get(fd, [(index, 0)])
                if value != (here[0][1] if here else 0):
                    raise DeviceError(
                        f"KVM on this host refuses {value:#x} for MSR {index:#x}: migrate to a host whose KVM has it"
                    )
                left_out.append(f"MSR {index:#x}")
        return left_out

    def comparable(self, sets: Sets) -> dict[str, bytes]:
        """Without the time stamp counter, which goes on by itself."""
        entries = MSRS.struct.iter_unpack(sets.get("msrs", b""))
        kept = b"".join(MSRS.struct.pack(index, value) for index, value in entries if index != TSC)
        return {"msrs": kept} if "msrs" in sets else {}


def _get(vcpu: int, entries: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what the kernel read, up to the first one that it refused."""
    found: list[tuple[int, int]] = []
    while len(found) < len(entries):
        part = entries[len(found) : len(found) + _AT_ONCE]
        buffer = _packed(part)
        read = kvm_abi.call(vcpu, kvm_abi.GET_MSRS, buffer)
        data = buffer[kvm_abi.MSRS_HEAD.size : kvm_abi.MSRS_HEAD.size + read * MSRS.struct.size]
        found.extend((int(index), int(value)) for index, value in MSRS.struct.iter_unpack(data))
        if read < len(part):
            break
    return found


def _put(vcpu: int, entries: Sequence[tuple[int, int]]) -> int:
    """Load the first entries, at most 256, and return how many the kernel took before it refused one."""
    return kvm_abi.call(vcpu, kvm_abi.SET_MSRS, _packed(entries[:_AT_ONCE]))


def _packed(entries: Sequence[tuple[int, int]]) -> bytearray:
    return bytearray(kvm_abi.MSRS_HEAD.pack(len(entries)) + b"".join(MSRS.struct.pack(*entry) for entry in entries))
