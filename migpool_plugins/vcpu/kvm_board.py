"""What the vCPUs of a KVM machine share, as parts: two interrupt controllers of the PC, the I/O APIC, timer and clock.

They are loaded **after** every vCPU: loading the I/O APIC delivers its pending interrupts to the local APICs, which
must be there with their own registers by then. The timer comes after the controllers that it interrupts, and the clock
last, so that it stands for as short as it can: it shows the guest the value that was saved, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.kvm_host import KvmHost
from migpool_plugins.vcpu.kvm_part import Part, Whole
from migpool_plugins.vcpu.state import RegisterFormat, Sets

_PIC: Final = tuple(
    RegisterFormat(name, kvm_abi.PIC, kvm_abi.PIC_FIELDS, optional=True) for name in ("pic_master", "pic_slave")
)
_IOAPIC: Final = RegisterFormat("ioapic", kvm_abi.IOAPIC, kvm_abi.IOAPIC_FIELDS, optional=True)
_PIT: Final = RegisterFormat("pit", kvm_abi.PIT2, kvm_abi.PIT2_FIELDS, optional=True)
_CLOCK: Final = RegisterFormat("clock", Struct("<Q"), ("nanoseconds",), optional=True)
_MOMENT: Final = RegisterFormat("moment", Struct("<IQQ"), ("flags", "realtime", "host_tsc"), optional=True)
"""When the clock was read, by the host's other clocks, as far as the flags say that the kernel knew; not loaded."""

_MASKED: Final = 1 << 16
_UNPROGRAMMED: Final = 0xFF


def board_parts(host: KvmHost) -> tuple[Part, ...]:
    """Return the parts that this host has, in the order in which they are read and loaded."""
    without_chips = host.without("KVM_CAP_IRQCHIP")
    chips = ((kvm_abi.IRQCHIP_PIC_MASTER, _PIC[0]), (kvm_abi.IRQCHIP_PIC_SLAVE, _PIC[1]))
    return (
        *(
            Whole(
                form,
                kvm_abi.GET_IRQCHIP,
                kvm_abi.SET_IRQCHIP,
                head=kvm_abi.IRQCHIP_HEAD.pack(number),
                lacking=without_chips,
                idle=lambda values: not (values["irr"] or values["isr"] or values["irq_base"]),
            )
            for number, form in chips
        ),
        Whole(
            _IOAPIC,
            kvm_abi.GET_IRQCHIP,
            kvm_abi.SET_IRQCHIP,
            head=kvm_abi.IRQCHIP_HEAD.pack(kvm_abi.IRQCHIP_IOAPIC),
            lacking=without_chips,
            idle=lambda values: all(values[f"redirection_{pin}"] & _MASKED for pin in range(24)),
        ),
        Whole(
            _PIT,
            kvm_abi.GET_PIT2,
            kvm_abi.SET_PIT2,
            lacking=host.without("KVM_CAP_PIT_STATE2"),
            idle=lambda values: all(values[f"channel{n}_mode"] == _UNPROGRAMMED for n in range(3)),
            # The kernel starts the count anew, by the host's own clock.
            passing=tuple(f"channel{n}_count_load_time" for n in range(3)),
        ),
        Clock(host.without("KVM_CAP_ADJUST_CLOCK")),
    )


class Clock(Part):
    """The clock that KVM shows to a guest which asks for it (kvmclock), in nanoseconds since the machine was made."""

    def __init__(self, lacking: str) -> None:
        super().__init__("the clock", [_CLOCK, _MOMENT], lacking)

    def read(self, fd: int) -> dict[str, bytes]:
        buffer = bytearray(kvm_abi.CLOCK.size)
        kvm_abi.call(fd, kvm_abi.GET_CLOCK, buffer)
        clock, flags, realtime, host_tsc = kvm_abi.CLOCK.unpack(buffer)
        return {"clock": _CLOCK.struct.pack(clock), "moment": _MOMENT.struct.pack(flags, realtime, host_tsc)}

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        # Without KVM_CLOCK_REALTIME: the time stamp counters stand still during the downtime, and so must this one.
        (clock,) = _CLOCK.struct.unpack(sets["clock"])
        kvm_abi.call(fd, kvm_abi.SET_CLOCK, bytearray(kvm_abi.CLOCK.pack(clock, 0, 0, 0)))
        return ()

    def comparable(self, sets: Sets) -> dict[str, bytes]:
        """Of the clock only that it is there: it goes on by itself."""
        return {name: bytes(_CLOCK.struct.size) for name in sets if name == _CLOCK.name}
