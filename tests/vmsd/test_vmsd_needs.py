"""What is known of captured devices: each is loaded after what it needs, and the document shows the table."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.conformance.devices import Subject
from migpool.conformance.pairing import migrate, settings_with
from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext
from migpool.errors import ScenarioError
from migpool.scenario.build import build_machine
from migpool.scenario.model_syntax import all_models, parse_model
from migpool.scenario.schema import Scenario
from migpool.units import KIB
from migpool_plugins.vmsd import CapturedDevice, devices
from migpool_plugins.vmsd.capture import CapturedSection, machine_names, read_machine
from migpool_plugins.vmsd.needs import KNOWN, UNKNOWN, Needs, after, needs_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "vmsd.md"


def section(name: str, instance_id: int = 0) -> CapturedSection:
    return CapturedSection(name, instance_id, 1, 0, b"", {})


def machine(name: str) -> Machine:
    return Machine(name, devices(DeviceContext("source", {"machine": name})))


def find(machine: Machine, name: str) -> Device:
    return next(slot.device for slot in machine if slot.name == name)


def test_the_document_has_the_whole_table_and_nothing_else() -> None:
    def row(kind: str, needs: Needs) -> str:
        before = ", ".join([*needs.after, *(f"{one} of the same number" for one in needs.same)]) or "-"
        return f"| `{kind}` | {needs.save} | {needs.load} | {before} | {needs.channel or '-'} | {needs.reason} |"

    rows = re.findall(r"^\| `.*", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert rows == [row(kind, needs) for kind, needs in KNOWN.items()]


@pytest.mark.parametrize("name", machine_names())
def test_a_captured_machine_is_known_and_keeps_its_order(name: str) -> None:
    known = machine(name)
    assert [slot.name for slot in known.crossing("main-channel").sections] == [slot.name for slot in known]
    for section in read_machine(name):
        assert needs_of(section) is not UNKNOWN, section.name


def test_all_of_a_q35_but_its_host_bridge_crosses_over_multifd() -> None:
    crossing = machine("q35-rich").crossing("multifd")
    assert [slot.name for slot in crossing.sections] == ["0000:00:00.0/mch", "PCIHost"]
    assert len(crossing.jobs) == 37
    places = {slot.name: place for place, slot in enumerate(crossing.jobs)}
    for slot in crossing.jobs:
        assert all(places[name] < places[slot.name] for name in slot.device.after if name != "ram")


def test_what_hangs_on_something_is_loaded_after_it() -> None:
    rich = machine("q35-rich")
    assert {"0000:00:03.0/ehci", "PCIBUS", "timer"} == set(find(rich, "0000:00:03.0/1/usb-ptr").after)
    assert "cpu_common#1" in find(rich, "cpu#1").after
    assert "cpu_common" not in find(rich, "cpu#1").after
    behind = section("0000:00:02.0:00.0/virtio-net")
    port = section("0000:00:02.0/pcie-root-port")
    assert after(behind, [port, section("PCIBUS")]) == ["ram", "0000:00:02.0/pcie-root-port", "PCIBUS"]


def test_what_comes_later_in_the_stream_is_not_waited_for() -> None:
    clock = find(machine("q35-rich"), "mc146818rtc")
    assert "apic#1" in clock.after
    assert "ioapic" not in clock.after


def test_who_reads_memory_comes_after_it() -> None:
    rich = machine("q35-rich")
    for name in ("0000:00:02.0/virtio-net", "0000:00:05.0/virtio-balloon", "0000:00:1f.2/ich9_ahci", "kvm-tpr-opt"):
        assert "ram" in find(rich, name).after
    assert "ram" not in find(rich, "hpet").after


@pytest.mark.parametrize("name", ["iommu-intel", "0000:00:01.0/virtio-iommu", "0000:00:04.0/virtio-mem-device-early"])
def test_what_is_set_up_early_stays_on_the_main_channel(name: str) -> None:
    assert needs_of(section(name)).channel == "main-channel"


def test_what_says_which_memory_there_is_comes_before_the_memory() -> None:
    early = section("0000:00:04.0/virtio-mem-device-early")
    captured = replace(early, entry={"name": early.name, "vmsd_name": "m", "version": 1, "fields": []})
    bus = section("PCIBUS")
    bus = replace(bus, entry={**captured.entry, "name": bus.name})
    made = [CapturedDevice(each, "source", needs_of(each)) for each in (bus, captured)]
    crossing = Machine("m", made).crossing("multifd")
    assert [slot.name for slot in crossing.early] == [early.name]
    assert crossing.sections == ()


def test_an_unknown_device_keeps_the_big_lock() -> None:
    needs = needs_of(section("0000:00:09.0/toaster"))
    assert (needs.save, needs.load, needs.channel) == ("big", "big", None)
    assert after(section("0000:00:09.0/toaster"), [section("PCIBUS")]) == ["PCIBUS"]


@pytest.mark.parametrize("model", all_models())
def test_a_machine_crosses_over_multifd_under_every_model(model: str) -> None:
    settings = replace(settings_with(64 * KIB, 8), vmsd="multifd")
    made = Subject("vmsd", devices, {"machine": "q35-rich"})
    with made.machines() as (source, destination):
        moved = migrate(source, destination, parse_model(model), settings)
        assert moved.completed, moved.error
        assert moved.source.verified
        assert sum(device.described for device in moved.source.devices) == 37


def scenario(include: list[str]) -> Scenario:
    entry = {"plugin": "vmsd", "vmsd": "multifd", "options": {"machine": "q35-min", "include": include}}
    return Scenario.model_validate({"name": "made", "devices": [entry]})


def test_an_entry_over_multifd_leaves_alone_what_is_early_or_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migpool_plugins.vmsd.needs_of", lambda _: replace(UNKNOWN, early=True))
    with pytest.raises(ScenarioError, match="hpet must stay on the main channel"):
        build_machine(scenario(["hpet"]), "source", 1)


def test_an_entry_over_multifd_leaves_on_the_main_channel_what_must_stay() -> None:
    built = build_machine(scenario(["PCIHost", "hpet"]), "source", 1)
    assert [find(built, name).config_channel for name in ("PCIHost", "hpet")] == ["main-channel", "multifd"]
    with pytest.raises(ScenarioError, match="PCIHost must stay on the main channel"):
        build_machine(scenario(["PCIHost"]), "source", 1)
