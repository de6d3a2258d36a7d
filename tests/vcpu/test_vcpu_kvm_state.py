"""Every part of a vCPU's state under KVM really moves, in an order that loses nothing, and what is refused is named."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack_into

import pytest

from migpool.device import DeviceError
from migpool_plugins.ioctl import Request
from migpool_plugins.vcpu import kvm_abi, program
from migpool_plugins.vcpu.kvm_machine import KvmMachine
from migpool_plugins.vcpu.kvm_msrs import TSC, TSC_DEADLINE
from migpool_plugins.vcpu.kvm_part import Parts
from migpool_plugins.vcpu.state import Sets
from tests.support.kvm_states import boot, changed, form_of, machines, msrs_of, value_of, with_msrs

KERNEL_GS_BASE, LSTAR, STAR, PAT = 0xC0000102, 0xC0000082, 0xC0000081, 0x277
LVT_DEADLINE = 2 << 17
APIC_ENABLED = 0x1FF
PAGE_FAULT, DEBUG = 14, 1


@pytest.fixture
def pair(kvm: str) -> Iterator[tuple[KvmMachine, KvmMachine]]:
    with machines() as made:
        assert made[0].name == kvm.upper()
        yield made


@pytest.fixture
def avx_pair(kvm: str) -> Iterator[tuple[KvmMachine, KvmMachine]]:
    try:
        with machines(cpu="avx") as made:
            assert made[0].name == kvm.upper()
            yield made
    except DeviceError as missing:
        if "no AVX" not in missing.message:
            raise
        pytest.skip(missing.message)


def loaded(pair: tuple[KvmMachine, KvmMachine], state: Sets) -> Sets:
    """The state as the other machine has it after loading, which must agree in everything that does not go on."""
    first, second = pair
    assert list(second.vcpus[0].load(state)) == []
    found = second.vcpus[0].save()
    assert second.vcpus[0].comparable(found) == first.vcpus[0].comparable(state)
    return found


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("regs", "r15", 0x0123456789ABCDEF),
        ("sregs", "fs_base", 0x00007FFF12345678),
        ("sregs", "gs_base", 0x00007FFF87654321),
        ("sregs", "cr2", 0x0000123456789000),
        ("fpu", "st3_mantissa", 0xC000000000000123),
        ("fpu", "xmm15_high", 0x5555666677778888),
        ("fpu", "mxcsr", 0x1FA0),
        ("fpu", "fcw", 0x027F),
        ("debugregs", "db0", 0x00007F0000001000),
        ("debugregs", "db3", 0x00007F0000003000),
        ("debugregs", "dr7", 0x0000000000000403),
        ("debugregs", "dr6", 0x00000000FFFF4FF1),
        ("vcpu_events", "nmi_pending", 1),
        ("vcpu_events", "nmi_masked", 1),
        ("vcpu_events", "interrupt_shadow", 1),
        ("vcpu_events", "triple_fault_pending", 1),
        ("mp_state", "mp_state", 3),
        ("lapic", "tpr", 0x20),
        ("lapic", "svr", APIC_ENABLED),
        ("lapic", "lvt_lint1", 0x400),
    ],
)
def test_a_value_is_loaded_into_another_machine(
    pair: tuple[KvmMachine, KvmMachine], name: str, field: str, value: int
) -> None:
    state = pair[0].vcpus[0].save()
    assert value_of(pair[0], state, name, field) != value
    more = {"svr": APIC_ENABLED} if field == "lvt_lint1" else {}
    state = changed(pair[0], state, name, **more, **{field: value})
    if name == "fpu":
        # The guest has not used the x87 yet: its component would count as untouched.
        state = changed(pair[0], state, "xsave_header", xstate_bv=3)
    if field == "tpr":
        # CR8 is the same register.
        state = changed(pair[0], state, "sregs", cr8=value >> 4)
        state = changed(pair[0], state, "lapic", ppr=value)
    found = loaded(pair, state)
    assert value_of(pair[1], found, name, field) == value


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (KERNEL_GS_BASE, 0x00007F1122334455),
        (LSTAR, 0x00007F5544332211),
        (STAR, 0x0023001000000000),
        (PAT, 0x0007040600070401),
    ],
)
def test_an_msr_is_loaded_into_another_machine(pair: tuple[KvmMachine, KvmMachine], index: int, value: int) -> None:
    state = with_msrs(pair[0].vcpus[0].save(), {index: value})
    assert msrs_of(loaded(pair, state))[index] == value


def test_an_interrupt_that_is_being_delivered_is_not_lost(pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = changed(
        pair[0], pair[0].vcpus[0].save(), "vcpu_events", interrupt_injected=1, interrupt_nr=0x42, interrupt_soft=0
    )
    found = loaded(pair, state)
    assert value_of(pair[1], found, "vcpu_events", "interrupt_nr") == 0x42


def test_a_pending_exception_keeps_its_payload_apart(pair: tuple[KvmMachine, KvmMachine]) -> None:
    """The address of a page fault reaches CR2 only when the guest takes the exception."""
    before = changed(pair[0], pair[0].vcpus[0].save(), "sregs", cr2=0x1000)
    state = changed(
        pair[0],
        before,
        "vcpu_events",
        exception_pending=1,
        exception_nr=PAGE_FAULT,
        exception_has_error_code=1,
        exception_error_code=4,
        exception_has_payload=1,
        exception_payload=0xABC000,
    )
    found = loaded(pair, state)
    assert value_of(pair[1], found, "sregs", "cr2") == 0x1000
    events = form_of(pair[1], "vcpu_events").values(found["vcpu_events"])
    assert (events["exception_nr"], events["exception_error_code"]) == (PAGE_FAULT, 4)
    assert (events["exception_has_payload"], events["exception_payload"]) == (1, 0xABC000)


def test_an_nmi_that_came_while_the_vcpu_stood_is_not_lost(pair: tuple[KvmMachine, KvmMachine]) -> None:
    kvm_abi.call(pair[0].vcpus[0].fd, Request("KVM_NMI", 0xAE9A))
    state = pair[0].vcpus[0].save()
    assert value_of(pair[0], state, "vcpu_events", "nmi_pending") == 1
    found = loaded(pair, state)
    assert value_of(pair[1], found, "vcpu_events", "nmi_pending") == 1


def test_the_deadline_of_the_apics_timer_is_not_lost(avx_pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = changed(avx_pair[0], avx_pair[0].vcpus[0].save(), "lapic", svr=APIC_ENABLED, lvt_timer=LVT_DEADLINE | 0x40)
    deadline = msrs_of(state)[TSC] + 10**13
    found = loaded(avx_pair, with_msrs(state, {TSC_DEADLINE: deadline}))
    assert msrs_of(found)[TSC_DEADLINE] == deadline


def test_a_counting_timer_goes_on_from_where_it_was(pair: tuple[KvmMachine, KvmMachine]) -> None:
    first, second = pair
    state = changed(
        first,
        first.vcpus[0].save(),
        "lapic",
        svr=APIC_ENABLED,
        lvt_timer=0x40,
        divide_configuration=0xA,
        initial_count=0xFFFFFFFF,
        current_count=0x70000000,
    )
    second.vcpus[0].load(state)
    left = value_of(second, second.vcpus[0].save(), "lapic", "current_count")
    assert 0 < left <= 0x70000000


def test_the_order_matters_for_the_deadline(avx_pair: tuple[KvmMachine, KvmMachine]) -> None:
    """MSRs before the local APIC lose the deadline: why the table has them the other way round."""
    second = avx_pair[1]
    state = changed(avx_pair[0], avx_pair[0].vcpus[0].save(), "lapic", svr=APIC_ENABLED, lvt_timer=LVT_DEADLINE | 0x40)
    deadline = msrs_of(state)[TSC] + 10**13
    state = with_msrs(state, {TSC_DEADLINE: deadline})
    vcpu = second.vcpus[0]
    wrong = sorted(second.vcpus[0].parts, key=lambda part: part.name != "msrs")
    Parts(vcpu.fd, wrong).load(state)
    assert msrs_of(vcpu.save())[TSC_DEADLINE] != deadline


def test_the_order_matters_for_a_pending_exception(pair: tuple[KvmMachine, KvmMachine]) -> None:
    """Registers after the events drop the exception: why the events come later."""
    second = pair[1]
    state = changed(pair[0], pair[0].vcpus[0].save(), "vcpu_events", exception_pending=1, exception_nr=DEBUG)
    wrong = sorted(second.vcpus[0].parts, key=lambda part: part.name == "regs")
    Parts(second.vcpus[0].fd, wrong).load(state)
    found = second.vcpus[0].save()
    assert value_of(second, found, "vcpu_events", "exception_pending") == 0


def with_avx(state: Sets, first: int) -> Sets:
    upper = bytearray(256)
    for number in range(16):
        pack_into("<2Q", upper, 16 * number, first + number, ~(first + number) & (1 << 64) - 1)
    return {**state, "avx": bytes(upper), "xsave_header": (7).to_bytes(16, "little")}


def test_avx_registers_are_loaded_into_another_machine(avx_pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = with_avx(avx_pair[0].vcpus[0].save(), 0x1111)
    found = loaded(avx_pair, state)
    assert value_of(avx_pair[1], found, "avx", "ymm15_upper_low") == 0x1111 + 15


def test_a_guest_that_has_not_used_avx_has_zeros_there(avx_pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = avx_pair[0].vcpus[0].save()
    assert value_of(avx_pair[0], state, "xcrs", "value_0") == 7
    assert not value_of(avx_pair[0], state, "xsave_header", "xstate_bv") & 4
    assert not any(state["avx"])


def test_the_registers_that_a_guest_loaded_are_read(avx_pair: tuple[KvmMachine, KvmMachine]) -> None:
    """A program that loads ymm7 from its page, adds 1 to the x87 stack and leaves by the doorbell."""
    first, second = avx_pair
    code = bytes.fromhex(
        "c5fe6f3f"  # vmovdqu ymm7, [rdi]
        "d9e8"  # fld1
        "41890b"  # mov [r11], ecx
    )
    vcpu = first.vcpus[0]
    # It lies in the vCPU's own page, behind what it reads.
    boot(first, rip=program.page_address(0) + 64)
    page = (bytes(range(32)).ljust(64, b"\0") + code).ljust(program.PAGE_SIZE, b"\0")
    vcpu.load({**vcpu.save(), "page": page})
    vcpu.run_batch()
    state = vcpu.save()
    assert value_of(first, state, "fpu", "xmm7_low") == int.from_bytes(bytes(range(8)), "little")
    assert value_of(first, state, "avx", "ymm7_upper_high") == int.from_bytes(bytes(range(24, 32)), "little")
    assert value_of(first, state, "fpu", "st0_exponent") == 0x3FFF
    assert loaded((first, second), state)["avx"] == state["avx"]


def test_the_time_stamp_counter_does_not_go_back(pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = pair[0].vcpus[0].save()
    found = loaded(pair, state)
    assert msrs_of(found)[TSC] > msrs_of(state)[TSC]


def test_the_speed_of_the_counter_travels(pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = pair[0].vcpus[0].save()
    assert value_of(pair[0], state, "tsc", "khz") == kvm_abi.call(pair[1].vcpus[0].fd, kvm_abi.GET_TSC_KHZ)


def test_every_set_that_this_host_has_is_read(pair: tuple[KvmMachine, KvmMachine]) -> None:
    machine = pair[0]
    registers = machine.vcpus[0].save()
    assert {name: len(data) for name, data in registers.items()} == {
        name: len(data) for name, data in machine.vcpus[0].blank.items()
    }
    assert next(iter(msrs_of(registers))) == TSC


def test_a_value_that_the_kernel_refuses_is_named(pair: tuple[KvmMachine, KvmMachine]) -> None:
    # Paging without protection: no processor allows it.
    state = changed(pair[0], pair[0].vcpus[0].save(), "sregs", cr0=1 << 31)
    with pytest.raises(DeviceError, match=r"^KVM_SET_SREGS2? failed with EINVAL: "):
        pair[1].vcpus[0].load(state)


def test_an_msr_that_this_host_lacks_is_left_out_if_it_is_0_and_named(pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = with_msrs(pair[0].vcpus[0].save(), {0xDEADBEEF: 0, KERNEL_GS_BASE: 0x7777})
    assert list(pair[1].vcpus[0].load(state)) == ["MSR 0xdeadbeef"]
    assert msrs_of(pair[1].vcpus[0].save())[KERNEL_GS_BASE] == 0x7777


def test_an_msr_in_use_that_this_host_lacks_is_refused(pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = with_msrs(pair[0].vcpus[0].save(), {0xDEADBEEF: 5})
    with pytest.raises(DeviceError) as refused:
        pair[1].vcpus[0].load(state)
    assert refused.value.message == (
        "KVM on this host refuses 0x5 for MSR 0xdeadbeef: migrate to a host whose KVM has it"
    )


def test_more_components_than_this_host_has_are_refused(pair: tuple[KvmMachine, KvmMachine]) -> None:
    state = pair[0].vcpus[0].save()
    room = len(pair[0].vcpus[0].blank.get("xsave_large", b""))
    large = bytes(room) + b"\1".rjust(8, b"\0")
    with pytest.raises(
        DeviceError, match=rf"^the guest's XSAVE area has {room + 8} bytes beyond 4096, KVM on this host"
    ):
        pair[1].vcpus[0].load({**state, "xsave_large": large})


def test_a_second_vcpu_needs_no_start_signal(kvm: str) -> None:
    with machines(count=2) as (first, second):
        assert first.name == kvm.upper()
        for left, right in zip(first.vcpus, second.vcpus, strict=True):
            right.load(left.save())
            right.run_batch()


def test_guests_are_brought_out_as_often_as_is_asked(pair: tuple[KvmMachine, KvmMachine]) -> None:
    """Each vCPU that does not end its batch asks for it again."""
    machine = pair[0]
    boot(machine, r8=1 << 40, r10=1 << 40)
    for _ in range(3):
        machine.expel()
    with pytest.raises(DeviceError, match=r"the guest left by exit|the guest touched address"):
        machine.vcpus[0].run_batch()
