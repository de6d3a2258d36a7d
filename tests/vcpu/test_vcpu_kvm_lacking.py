"""A host that lacks a part of KVM says so and goes on; a state that needs what a host lacks is refused in one line.

The kernel is the real one, but for some ioctls and capabilities that it is made to refuse.
"""

from __future__ import annotations

from contextlib import closing

import pytest

from migpool.device import DeviceContext, DeviceError
from migpool_plugins.vcpu import devices, kvm_machine
from migpool_plugins.vcpu.kvm_machine import KvmMachine
from migpool_plugins.vcpu.kvm_msrs import listed_msrs, named
from tests.support.kvm_states import boot, changed, kernel_without, machines, msrs_of, value_of

CAPABILITIES = {
    "KVM_CAP_XCRS": {"xcrs"},
    "KVM_CAP_MP_STATE": {"mp_state"},
    "KVM_CAP_VCPU_EVENTS": {"vcpu_events"},
    "KVM_CAP_DEBUGREGS": {"debugregs"},
    "KVM_CAP_GET_TSC_KHZ": {"tsc"},
    "KVM_CAP_SREGS2": {"pdptrs"},
    "KVM_CAP_XSAVE": {"xsave_header", "avx", "xsave_components"},
}


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_host_without_a_part_says_so_and_moves_the_rest(kvm: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = CAPABILITIES[name]
    with machines() as (whole, _):
        everything = whole.vcpus[0].save().keys()
    kernel_without(monkeypatch, {name: 0})
    with machines() as (first, second):
        assert first.name == kvm.upper()
        assert list(first.lacks) == [name]
        state = first.vcpus[0].save()
        assert everything - state.keys() - {"xsave_large"} == sets
        assert list(second.vcpus[0].load(state)) == []
        second.vcpus[0].run_batch()
        assert value_of(second, second.vcpus[0].save(), "regs", "rcx") == 200


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("KVM_CAP_XCRS", "xcrs"),
        ("KVM_CAP_MP_STATE", "mp_state"),
        ("KVM_CAP_VCPU_EVENTS", "vcpu_events"),
        ("KVM_CAP_DEBUGREGS", "debugregs"),
    ],
)
def test_a_part_that_the_guest_does_not_use_is_left_out_and_named(
    kvm: str, name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(KvmMachine(1)) as first:
        boot(first)
        first.vcpus[0].run_batch()
        kernel_without(monkeypatch, {name: 0})
        with closing(KvmMachine(1)) as second:
            assert second.name == kvm.upper()
            assert list(second.vcpus[0].load(first.vcpus[0].save())) == [f"{part} ({name})"]
            second.vcpus[0].run_batch()


@pytest.mark.parametrize(
    ("name", "part", "values"),
    [
        ("KVM_CAP_MP_STATE", "mp_state", {"mp_state": 3}),
        ("KVM_CAP_VCPU_EVENTS", "vcpu_events", {"nmi_pending": 1}),
        ("KVM_CAP_DEBUGREGS", "debugregs", {"db0": 0x1000, "dr7": 0x401}),
        ("KVM_CAP_XCRS", "xcrs", {"value_0": 7}),
    ],
)
def test_a_part_that_the_guest_uses_is_refused_where_it_cannot_be_loaded(
    kvm: str, name: str, part: str, values: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(KvmMachine(1)) as first:
        boot(first)
        state = changed(first, first.vcpus[0].save(), part, **values)
        kernel_without(monkeypatch, {name: 0})
        with closing(KvmMachine(1)) as second, pytest.raises(DeviceError) as refused:
            second.vcpus[0].load(state)
    assert kvm
    assert refused.value.message == (
        f"the guest uses {part}, which KVM on this host cannot load: it lacks {name}; migrate to a host that has it"
    )


@pytest.mark.parametrize(
    ("capability", "values", "message"),
    [
        (
            "KVM_CAP_EXCEPTION_PAYLOAD",
            {"exception_pending": 1, "exception_nr": 14, "exception_has_payload": 1},
            "the vCPU has exception pending, which KVM on this host cannot load: it lacks KVM_CAP_EXCEPTION_PAYLOAD; ",
        ),
        (
            "KVM_CAP_X86_TRIPLE_FAULT_EVENT",
            {"triple_fault_pending": 1},
            "the vCPU has triple fault pending, which KVM on this host cannot load: "
            "it lacks KVM_CAP_X86_TRIPLE_FAULT_EVENT; ",
        ),
    ],
)
def test_an_event_that_an_older_kernel_does_not_know_is_refused_only_if_it_is_pending(
    kvm: str, capability: str, values: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(KvmMachine(1)) as first:
        boot(first)
        calm = first.vcpus[0].save()
        kernel_without(monkeypatch, {capability: 0})
        with closing(KvmMachine(1)) as second:
            assert second.name == kvm.upper()
            second.vcpus[0].load(calm)
            with pytest.raises(DeviceError) as refused:
                second.vcpus[0].load(changed(first, calm, "vcpu_events", **values))
    assert refused.value.message == f"{message}migrate to a host that has it"


def test_pdptrs_are_refused_where_they_cannot_be_loaded(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_without(monkeypatch, {"KVM_CAP_SREGS2": 0})
    with machines() as (first, second):
        assert first.name == kvm.upper()
        state = first.vcpus[0].save()
        with pytest.raises(
            DeviceError, match=r"^the guest uses PDPTRs, which KVM on this host cannot load: it lacks KVM"
        ):
            second.vcpus[0].load({**state, "pdptrs": bytes([1] + [0] * 39)})


def test_x87_and_sse_move_between_a_host_with_xsave_and_one_without(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with machines() as (first, back):
        state = first.vcpus[0].save()
        state = changed(first, state, "fpu", xmm9_high=0x1234, st2_mantissa=0xC0000000DEADBEEF, fop=0x123)
        state = changed(first, state, "xsave_header", xstate_bv=3)
        with monkeypatch.context() as without:
            kernel_without(without, {"KVM_CAP_XSAVE": 0})
            with closing(KvmMachine(1)) as second:
                assert second.name == kvm.upper()
                second.vcpus[0].load(state)
                moved = second.vcpus[0].save()
        assert "xsave_header" not in moved
        back.vcpus[0].load(moved)
        found = back.vcpus[0].save()
    for field, value in (("xmm9_high", 0x1234), ("st2_mantissa", 0xC0000000DEADBEEF), ("fop", 0x123)):
        assert value_of(first, moved, "fpu", field) == value
        assert value_of(first, found, "fpu", field) == value


def test_avx_is_refused_on_a_host_without_xsave(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(KvmMachine(1)) as first:
        boot(first)
        state = changed(first, first.vcpus[0].save(), "xsave_header", xstate_bv=7)
        kernel_without(monkeypatch, {"KVM_CAP_XSAVE": 0})
        with closing(KvmMachine(1)) as second, pytest.raises(DeviceError) as refused:
            second.vcpus[0].load(state)
    assert kvm
    assert refused.value.message == (
        "the guest uses the XSAVE components 0x7, which KVM on this host cannot load: it lacks KVM_CAP_XSAVE; "
        "migrate to a host that has it"
    )


def test_mxcsr_is_refused_on_a_host_without_xsave(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM_SET_FPU would take it and lose it."""
    with closing(KvmMachine(1)) as first:
        boot(first)
        state = changed(first, first.vcpus[0].save(), "fpu", mxcsr=0x1FA0)
        kernel_without(monkeypatch, {"KVM_CAP_XSAVE": 0})
        with closing(KvmMachine(1)) as second, pytest.raises(DeviceError) as refused:
            second.vcpus[0].load(state)
    assert kvm
    assert refused.value.message.startswith("the guest has MXCSR at 0x1fa0, which KVM on this host cannot load")


def test_a_counter_of_another_speed_is_refused(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with machines() as (first, second):
        assert first.name == kvm.upper()
        state = first.vcpus[0].save()
        khz = value_of(first, state, "tsc", "khz")
        kernel_without(monkeypatch, refused={"KVM_SET_TSC_KHZ": "EINVAL"})
        with pytest.raises(DeviceError) as refused:
            second.vcpus[0].load(changed(first, state, "tsc", khz=khz + 1000))
    assert refused.value.message.startswith(
        f"the guest's time stamp counter runs at {khz + 1000} kHz, this host's at {khz} and KVM cannot change that"
    )


def test_a_host_that_refuses_the_interrupt_controllers_goes_on_without(
    kvm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_without(monkeypatch, refused={"KVM_CREATE_IRQCHIP": "ENODEV"})
    with machines(count=2) as (first, second):
        assert first.name == kvm.upper()
        # Some MSRs are refused along with them.
        assert first.lacks[0] == "KVM_CAP_IRQCHIP (KVM_CREATE_IRQCHIP failed with ENODEV: refused by the test)"
        assert first.board.save().keys() <= {"clock", "moment"}
        for left, right in zip(first.vcpus, second.vcpus, strict=True):
            state = left.save()
            assert "lapic" not in state
            right.load(state)
            right.run_batch()
        second.board.load(first.board.save())


def test_a_host_that_refuses_the_timer_goes_on_without(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_without(monkeypatch, refused={"KVM_CREATE_PIT2": "EEXIST"})
    with closing(KvmMachine(1)) as machine:
        assert machine.name == kvm.upper()
        assert list(machine.lacks) == ["KVM_CAP_PIT2 (KVM_CREATE_PIT2 failed with EEXIST: refused by the test)"]
        assert {"pic_master", "pic_slave", "ioapic", "clock"} <= machine.board.save().keys()
        assert "pit" not in machine.board.save()


def test_an_apic_in_use_is_refused_on_a_host_without_one(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(KvmMachine(1)) as first:
        boot(first)
        calm = first.vcpus[0].save()
        kernel_without(monkeypatch, refused={"KVM_CREATE_IRQCHIP": "ENODEV"})
        with closing(KvmMachine(1)) as second:
            assert second.name == kvm.upper()
            assert "lapic (KVM_CAP_IRQCHIP)" in second.vcpus[0].load(calm)
            with pytest.raises(DeviceError, match=r"^the guest uses lapic, which KVM on this host cannot load"):
                second.vcpus[0].load(changed(first, calm, "lapic", svr=0x1FF))


@pytest.mark.parametrize("capability", ["KVM_CAP_USER_MEMORY", "KVM_CAP_IMMEDIATE_EXIT"])
def test_what_the_guest_cannot_run_without_is_refused(
    kvm: str, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_without(monkeypatch, {capability: 0})
    with pytest.raises(DeviceError, match=r"^this kernel's KVM lacks KVM_CAP_[A-Z_]+: use the Unicorn backend$"):
        KvmMachine(1)
    assert kvm


def test_msrs_that_the_kernel_refuses_are_left_out_and_named(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own list names three MSRs that no vCPU has."""
    monkeypatch.setattr(kvm_machine, "listed_msrs", lambda fd: [*listed_msrs(fd), 0xDEADBEEF, 0xDEADBEEE, 0xDEADBEE0])
    with machines() as (first, second):
        assert first.name == kvm.upper()
        assert list(first.lacks) == ["MSRs 0xdeadbee0 0xdeadbeee-0xdeadbeef"]
        state = first.vcpus[0].save()
        assert not {0xDEADBEEF, 0xDEADBEE0} & msrs_of(state).keys()
        assert list(second.vcpus[0].load(state)) == []


@pytest.mark.parametrize(
    ("indices", "words"), [([], ""), ([0x10], "0x10"), ([3, 1, 2, 9], "0x1-0x3 0x9"), ([0, 1], "0x0-0x1")]
)
def test_msrs_are_named_by_ranges(indices: list[int], words: str) -> None:
    assert named(indices) == words


def test_a_device_says_what_its_host_lacks(kvm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_without(monkeypatch, {"KVM_CAP_DEBUGREGS": 0, "KVM_CAP_SREGS2": 0})
    made = devices(DeviceContext("source", {"backend": kvm}))
    try:
        assert {device.note for device in made} == {"KVM without KVM_CAP_DEBUGREGS, KVM_CAP_SREGS2"}
    finally:
        for device in made:
            device.close()
