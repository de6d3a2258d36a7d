"""Which backend runs the vCPUs is chosen by trying, said aloud, and refused with a remedy when none works."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_machine
from tests.support.making_vcpus import MakeVcpus


def forbid_unicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "migpool_plugins.vcpu.unicorn_machine", raising=False)
    monkeypatch.setitem(sys.modules, "unicorn", None)


def test_auto_takes_kvm_where_it_works(kvm: str, make_vcpus: MakeVcpus) -> None:
    assert [vcpu.note for vcpu in make_vcpus("source", "auto")] == ["KVM", "KVM"]
    assert [vcpu.note for vcpu in make_vcpus("destination", kvm, count=1)] == ["KVM"]


def test_auto_takes_unicorn_where_kvm_is_missing(
    unicorn: str, make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kvm_machine, "DEVICE_NODE", str(tmp_path / "kvm"))
    assert [vcpu.note for vcpu in make_vcpus("source", "auto")] == ["Unicorn", "Unicorn"]
    assert [vcpu.note for vcpu in make_vcpus("destination", unicorn, count=1)] == ["Unicorn"]


def test_auto_takes_unicorn_where_the_device_node_is_something_else(
    unicorn: str, make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvm_machine, "DEVICE_NODE", "/dev/null")
    assert make_vcpus("source", "auto", count=1)[0].note == unicorn.capitalize()


def test_kvm_asked_for_by_name_is_not_replaced(
    make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = tmp_path / "kvm"
    monkeypatch.setattr(kvm_machine, "DEVICE_NODE", str(missing))
    with pytest.raises(DeviceError) as refused:
        make_vcpus("source", "kvm")
    assert str(refused.value) == f"{missing} does not exist: load the kvm module, or use the Unicorn backend"


def test_a_device_node_that_may_not_be_opened_is_named(
    make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kvm_machine, "DEVICE_NODE", str(tmp_path))
    with pytest.raises(DeviceError, match=r"cannot be opened \(Is a directory\): join the kvm group, or use"):
        make_vcpus("source", "kvm")


def test_without_either_both_reasons_and_the_remedy_are_given(
    make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kvm_machine, "DEVICE_NODE", str(tmp_path / "kvm"))
    forbid_unicorn(monkeypatch)
    with pytest.raises(DeviceError) as refused:
        make_vcpus("source", "auto")
    message = str(refused.value)
    assert message.startswith("no backend for vCPUs: ")
    assert "does not exist: load the kvm module" in message
    assert "pip install 'migpool[unicorn]'" in message
    assert "\n" not in message


def test_optional_vcpus_are_left_out_where_neither_works_and_a_warning_says_why(
    make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kvm_machine, "DEVICE_NODE", str(tmp_path / "kvm"))
    forbid_unicorn(monkeypatch)
    assert make_vcpus("source", "auto", optional=True) == []
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("the vCPUs are left out: no backend for vCPUs: ")
    with pytest.raises(DeviceError, match="does not exist"):
        make_vcpus("source", "kvm", optional=True)  # what is asked for by name must be there


def test_optional_vcpus_are_there_where_they_can_be(backend: str, make_vcpus: MakeVcpus) -> None:
    assert len(make_vcpus("source", backend, optional=True)) == len(make_vcpus("source", "auto", optional=True)) == 2


def test_an_old_unicorn_is_refused(unicorn: str, make_vcpus: MakeVcpus, monkeypatch: pytest.MonkeyPatch) -> None:
    library = importlib.import_module("unicorn")

    class OldEngine:
        """Has none of the calls that read many registers at once."""

    monkeypatch.setattr(library, "Uc", OldEngine)
    with pytest.raises(DeviceError, match=r"^Unicorn .* is too old: install 2.1 or newer$"):
        make_vcpus("source", unicorn)
