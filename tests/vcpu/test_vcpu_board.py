"""What the vCPUs share moves too: interrupt controllers, timer and clock; after the vCPUs, and never while one runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from migpool.device import Device, DeviceContext, DeviceError
from migpool_plugins.vcpu import devices
from migpool_plugins.vcpu.device import BoardDevice
from migpool_plugins.vcpu.kvm_machine import KvmMachine
from tests.support.kvm_states import form_of, machines, value_of

Sides = tuple[list[Device], list[Device]]


@pytest.fixture
def pair(kvm: str) -> Iterator[tuple[KvmMachine, KvmMachine]]:
    with machines() as made:
        assert made[0].name == kvm.upper()
        for left, right in zip(made[0].vcpus, made[1].vcpus, strict=True):
            right.load(left.save())
        yield made


@pytest.fixture
def sides(backend: str) -> Iterator[Sides]:
    made: list[Device] = []
    try:
        made += devices(DeviceContext("source", {"backend": backend}, 2, 7))
        made += devices(DeviceContext("destination", {"backend": backend}, 2, 7))
        yield made[:3], made[3:]
    finally:
        for device in made:
            device.close()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("pic_master", "irq_base", 0x20),
        ("pic_master", "imr", 0xFB),
        ("pic_slave", "irq_base", 0x28),
        ("pic_slave", "isr", 0x10),
        ("ioapic", "ioregsel", 0x12),
        ("ioapic", "redirection_4", 0x0300000000010034),
        ("pit", "channel0_count", 0x4A9),
        ("pit", "channel2_mode", 3),
        ("clock", "nanoseconds", 10**15),
    ],
)
def test_a_value_is_loaded_into_another_machine(
    pair: tuple[KvmMachine, KvmMachine], name: str, field: str, value: int
) -> None:
    first, second = pair
    sets = dict(first.board.save())
    form = form_of(first, name)
    assert form.values(sets[name])[field] != value
    sets[name] = form.struct.pack(*{**form.values(sets[name]), field: value}.values())
    assert list(second.board.load(sets)) == []
    found = second.board.save()
    if name == "clock":
        # It goes on by itself.
        assert value <= value_of(second, found, name, field) < value + 60 * 10**9
    else:
        assert value_of(second, found, name, field) == value
        assert second.board.comparable(found) == first.board.comparable(sets)


def test_the_clock_goes_on_from_what_it_was(pair: tuple[KvmMachine, KvmMachine]) -> None:
    first, second = pair
    saved = first.board.save()
    second.board.load(saved)
    one, other = (value_of(second, second.board.save(), "clock", "nanoseconds") for _ in range(2))
    assert value_of(first, saved, "clock", "nanoseconds") <= one < other


def test_a_pending_interrupt_of_the_io_apic_reaches_the_local_apic(pair: tuple[KvmMachine, KvmMachine]) -> None:
    """Why the board is loaded after the vCPUs: the other way round this interrupt would be lost."""
    first, second = pair
    vcpu = second.vcpus[0]
    state = first.vcpus[0].save()
    lapic = form_of(first, "lapic")
    enabled = lapic.struct.pack(*{**lapic.values(state["lapic"]), "svr": 0x1FF}.values())
    vcpu.load({**state, "lapic": enabled})
    sets = dict(first.board.save())
    ioapic = form_of(first, "ioapic")
    # Pin 5, vector 0x45, to APIC 0, edge-triggered, not masked; and pending.
    values = {**ioapic.values(sets["ioapic"]), "redirection_5": 0x45, "irr": 1 << 5}
    second.board.load({**sets, "ioapic": ioapic.struct.pack(*values.values())})
    assert value_of(second, vcpu.save(), "lapic", "irr2") == 1 << (0x45 - 0x40)


def test_vcpus_and_board_move_together(sides: Sides) -> None:
    source, destination = sides
    for left, right in zip(source, destination, strict=True):
        right.load_setup(left.save_setup())
        left.stop()
    configs = [device.save_config() for device in source]
    for device, config in zip(destination, configs, strict=True):
        assert device.measure_config(memoryview(config + b"\x7e")) == len(config)
        device.load_config(config)
    for device in reversed(destination):
        device.start()
    for left, right in zip(source, destination, strict=True):
        right.verify()
        assert left.fingerprint() == right.fingerprint() is not None
    assert isinstance(source[-1], BoardDevice)
    assert [device.idstr for device in source] == ["vcpu", "vcpu", "vcpu-board"]


def test_a_board_is_neither_saved_nor_loaded_too_early(sides: Sides) -> None:
    source, destination = sides
    with pytest.raises(DeviceError, match=r"^a vCPU runs: stop every vCPU before what they share is saved$"):
        source[-1].save_config()
    for device in source:
        device.stop()
    configs = [device.save_config() for device in source]
    destination[0].load_config(configs[0])
    with pytest.raises(DeviceError, match=r"^vCPU 1 has no state yet: what the vCPUs share is loaded after them$"):
        destination[2].load_config(configs[2])
    destination[1].load_config(configs[1])
    destination[0].start()
    with pytest.raises(DeviceError, match=r"^a vCPU runs: what they share is loaded before they are started$"):
        destination[2].load_config(configs[2])


def test_a_board_that_is_aborted_or_closed_refuses(sides: Sides) -> None:
    board = sides[0][-1]
    for device in sides[0]:
        device.stop()
    board.abort()
    with pytest.raises(DeviceError, match="the migration was aborted"):
        board.save_config()
    board.resume()
    assert board.save_config()
    board.close()
    with pytest.raises(DeviceError, match="is closed"):
        board.save_config()


def test_a_changed_board_changes_the_fingerprint(kvm: str) -> None:
    made = [
        *devices(DeviceContext("source", {"backend": kvm})),
        *devices(DeviceContext("destination", {"backend": kvm})),
    ]
    try:
        vcpu, board, other_vcpu, other_board = made
        vcpu.stop()
        other_vcpu.load_config(vcpu.save_config())
        config = bytearray(board.save_config())
        name = b"vcpu-board/pic_master"
        # Behind the name and the version come last_irr, irr and imr.
        config[config.index(name) + len(name) + 4 + 2] ^= 1
        other_board.load_config(bytes(config))
        assert other_board.fingerprint() != board.fingerprint()
    finally:
        for device in made:
            device.close()
