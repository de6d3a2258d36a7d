"""What this plug-in believes of KVM's interface is what the kernel's headers say."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from struct import Struct, calcsize

import pytest

from migpool_plugins.ioctl import Request
from migpool_plugins.vcpu import kvm_abi

FIELDS = {
    "struct kvm_regs": (kvm_abi.REGS, kvm_abi.REGS_FIELDS),
    "struct kvm_dtable": (kvm_abi.DTABLE, ("base", "limit")),
    "struct kvm_segment": (kvm_abi.SEGMENT, kvm_abi.SEGMENT_FIELDS),
    "struct kvm_pic_state": (kvm_abi.PIC, kvm_abi.PIC_FIELDS),
    "struct kvm_pit_channel_state": (kvm_abi.PIT_CHANNEL, kvm_abi.PIT_CHANNEL_FIELDS),
    "struct kvm_clock_data": (kvm_abi.CLOCK, ("clock", "flags", "realtime", "host_tsc")),
    "struct kvm_dirty_gfn": (kvm_abi.DIRTY_GFN, kvm_abi.DIRTY_GFN_FIELDS),
}
"""Structures whose fields have the kernel's names: the place of every one of them is compared."""


def offsets(form: Struct) -> list[int]:
    """Where each value of a packed structure begins."""
    found, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", form.format):
        if code in "sx":
            found += [at] if code == "s" else []
            at += int(count or 1)
            continue
        for _ in range(int(count or 1)):
            found.append(at)
            at += calcsize(f"<{code}")
    return found


def event_member(name: str) -> str:
    """What the kernel calls a value of ``struct kvm_vcpu_events``."""
    for group in ("exception", "interrupt", "nmi", "smi", "triple_fault"):
        if name.startswith(f"{group}_") and not name.startswith(("exception_has_p", "exception_payload")):
            return name.replace(f"{group}_", f"{group}.", 1)
    return name


SIZES = {
    "struct kvm_regs": kvm_abi.REGS.size,
    "struct kvm_segment": kvm_abi.SEGMENT.size,
    "struct kvm_dtable": kvm_abi.DTABLE.size,
    "struct kvm_sregs": kvm_abi.SREGS.size,
    "struct kvm_msrs": kvm_abi.MSRS_HEAD.size,
    "struct kvm_msr_entry": kvm_abi.MSR_ENTRY.size,
    "struct kvm_mp_state": kvm_abi.MP_STATE.size,
    "struct kvm_vcpu_events": kvm_abi.VCPU_EVENTS.size,
    "struct kvm_debugregs": kvm_abi.DEBUGREGS.size,
    "struct kvm_xcrs": kvm_abi.XCRS.size,
    "struct kvm_sregs2": kvm_abi.SREGS2.size,
    "struct kvm_fpu": kvm_abi.FPU.size,
    "struct kvm_lapic_state": kvm_abi.LAPIC.size,
    "struct kvm_irqchip": kvm_abi.IRQCHIP.size,
    "struct kvm_pic_state": kvm_abi.PIC.size,
    "struct kvm_ioapic_state": kvm_abi.IOAPIC.size,
    "struct kvm_pit_channel_state": kvm_abi.PIT_CHANNEL.size,
    "struct kvm_pit_state2": kvm_abi.PIT2.size,
    "struct kvm_pit_config": kvm_abi.PIT_CONFIG.size,
    "struct kvm_clock_data": kvm_abi.CLOCK.size,
    "struct kvm_enable_cap": kvm_abi.ENABLE_CAP.size,
    "struct kvm_xsave": kvm_abi.XSAVE.size,
    "struct kvm_userspace_memory_region": kvm_abi.USER_MEMORY_REGION.size,
    "struct kvm_cpuid2": kvm_abi.CPUID_HEAD.size,
    "struct kvm_cpuid_entry2": kvm_abi.CPUID_ENTRY.size,
    "struct kvm_msr_list": kvm_abi.MSR_LIST_HEAD.size,
    "struct kvm_dirty_log": kvm_abi.DIRTY_LOG.size,
    "struct kvm_clear_dirty_log": kvm_abi.CLEAR_LOG.size,
    "struct kvm_dirty_gfn": kvm_abi.DIRTY_GFN.size,
}

SEGMENT_WIDTH = kvm_abi.SEGMENT.size
OFFSETS = {
    ("struct kvm_regs", "r8"): 8 * kvm_abi.REGS_FIELDS.index("r8"),
    ("struct kvm_regs", "rflags"): 8 * kvm_abi.REGS_FIELDS.index("rflags"),
    ("struct kvm_segment", "unusable"): SEGMENT_WIDTH - 2,
    **{("struct kvm_sregs", name): number * SEGMENT_WIDTH for number, name in enumerate(kvm_abi.SEGMENTS)},
    ("struct kvm_sregs", "cr0"): len(kvm_abi.SEGMENTS) * SEGMENT_WIDTH + 2 * kvm_abi.DTABLE.size,
    ("struct kvm_sregs", "efer"): len(kvm_abi.SEGMENTS) * SEGMENT_WIDTH + 2 * kvm_abi.DTABLE.size + 40,
    ("struct kvm_sregs2", "flags"): kvm_abi.SREGS_BASE.size,
    ("struct kvm_fpu", "xmm"): offsets(kvm_abi.FPU)[7],
    ("struct kvm_irqchip", "chip"): kvm_abi.IRQCHIP_HEAD.size,
    **{
        (name, field): offset
        for name, (form, fields) in FIELDS.items()
        for field, offset in zip(fields, offsets(form), strict=True)
    },
    **{
        ("struct kvm_vcpu_events", event_member(field)): offset
        for field, offset in zip(kvm_abi.VCPU_EVENTS_FIELDS, offsets(kvm_abi.VCPU_EVENTS), strict=True)
    },
    **{("struct kvm_pit_state2", f"channels[{n}]"): n * kvm_abi.PIT_CHANNEL.size for n in range(3)},
    ("struct kvm_pit_state2", "flags"): 3 * kvm_abi.PIT_CHANNEL.size,
    ("struct kvm_ioapic_state", "redirtbl"): offsets(kvm_abi.IOAPIC)[4],
    ("struct kvm_ioapic_state", "irr"): offsets(kvm_abi.IOAPIC)[3],
    ("struct kvm_run", "immediate_exit"): kvm_abi.RUN_IMMEDIATE_EXIT,
    ("struct kvm_run", "exit_reason"): kvm_abi.RUN_EXIT_REASON,
    ("struct kvm_run", "mmio"): kvm_abi.RUN_MMIO,
    ("struct kvm_run", "mmio.len"): kvm_abi.RUN_MMIO + 16,
    ("struct kvm_run", "mmio.is_write"): kvm_abi.RUN_MMIO + 20,
}

SYMBOLS = ("IRQCHIP_PIC", "IRQCHIP_IOAPIC", "MP_STATE_", "VCPUEVENT_", "DIRTY_GFN_F_")
REQUESTS = {value.name: value.number for value in vars(kvm_abi).values() if isinstance(value, Request)}
NUMBERS = {
    **REQUESTS,
    **kvm_abi.CAPABILITIES,
    **{f"KVM_{name}": value for name, value in vars(kvm_abi).items() if name.startswith(SYMBOLS)},
    "KVM_API_VERSION": kvm_abi.API_VERSION,
    "KVM_EXIT_MMIO": kvm_abi.EXIT_MMIO,
    "KVM_EXIT_DIRTY_RING_FULL": kvm_abi.EXIT_DIRTY_RING_FULL,
    "KVM_DIRTY_LOG_PAGE_OFFSET": kvm_abi.DIRTY_LOG_PAGE_OFFSET,
    "KVM_MEM_LOG_DIRTY_PAGES": kvm_abi.MEM_LOG_DIRTY_PAGES,
}


def _missing() -> str:
    if platform.machine() != "x86_64":
        return f"the headers of {platform.machine()} do not describe x86"
    if shutil.which("gcc") is None:
        return "gcc is not installed"
    return "" if Path("/usr/include/linux/kvm.h").exists() else "linux/kvm.h is not installed"


@pytest.mark.skipif(bool(_missing()), reason=_missing() or "all is there")
def test_every_size_offset_and_number_is_the_kernels(tmp_path: Path) -> None:
    lines = [
        *(f'printf("{name}=%zu\\n", sizeof({name}));' for name in SIZES),
        *(f'printf("{name}.{field}=%zu\\n", offsetof({name}, {field}));' for name, field in OFFSETS),
        *(f'printf("{name}=%lu\\n", (unsigned long){name});' for name in NUMBERS),
    ]
    source = tmp_path / "abi.c"
    source.write_text(
        "#include <stdio.h>\n#include <stddef.h>\n#include <linux/kvm.h>\nint main(void) {\n"
        + "\n".join(lines)
        + "\nreturn 0; }\n"
    )
    binary = tmp_path / "abi"
    subprocess.run(["gcc", "-o", binary, source], check=True, timeout=30)
    printed = subprocess.run([binary], check=True, timeout=10, capture_output=True, text=True).stdout
    kernel = {name: int(value) for name, value in (line.rsplit("=", 1) for line in printed.splitlines())}
    own = {**SIZES, **{f"{name}.{field}": offset for (name, field), offset in OFFSETS.items()}, **NUMBERS}
    assert own == kernel


def test_the_requests_are_all_there() -> None:
    """Guards the test above against comparing nothing."""
    assert {"KVM_RUN", "KVM_GET_REGS", "KVM_SET_XSAVE", "KVM_SET_CPUID2"} <= REQUESTS.keys()
    assert {"KVM_GET_SREGS2", "KVM_SET_LAPIC", "KVM_SET_IRQCHIP", "KVM_SET_PIT2", "KVM_SET_CLOCK"} <= REQUESTS.keys()
    assert len(OFFSETS) > 100


def test_a_structure_has_as_many_values_as_names() -> None:
    assert len(kvm_abi.REGS.unpack(bytes(kvm_abi.REGS.size))) == len(kvm_abi.REGS_FIELDS)
    assert len(kvm_abi.SEGMENT.unpack(bytes(kvm_abi.SEGMENT.size))) == len(kvm_abi.SEGMENT_FIELDS)
