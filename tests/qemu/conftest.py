"""Whether there is a QEMU, and the guest after it has booted: once for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.qemu.qemu_guest import FILES, Guest, set_up
from tests.qemu.qemuprocess import Qemu, QemuProcess, qemu_here

HERE = Path(__file__).parent
NEEDED = (FILES / "vmlinuz", FILES / "initramfs")


def what_is_missing() -> str:
    """Why these tests cannot run here; empty if they can."""
    if qemu_here() is None:
        return "no qemu-system-x86_64 of version 10 or later: tests/qemu/setup installs it"
    missing = [str(file) for file in NEEDED if not file.exists()]
    return f"no {' and no '.join(missing)}: tests/qemu/setup builds the guest" if missing else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory; where QEMU is a must, its absence fails them instead of skipping them."""
    reason = what_is_missing()
    for item in items:
        if str(item.path).startswith(f"{HERE}/"):
            item.add_marker(pytest.mark.qemu)
            if reason and not os.environ.get("MIGPOOL_QEMU_REQUIRED"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Guest]]:
    """The guest on a machine of some type, with a stream file from which every test's source begins."""
    reason = what_is_missing()
    assert not reason, reason
    program = qemu_here()
    assert program is not None
    guests: dict[str, Guest] = {}

    def on(machine: str) -> Guest:
        if machine not in guests:
            guests[machine] = boot(program, machine, tmp_path_factory.mktemp("qemu"))
        return guests[machine]

    yield on
    for guest in guests.values():
        if guest.base is not None:
            guest.base.unlink()


def boot(program: Qemu, machine: str, directory: Path) -> Guest:
    """A guest that has booted."""
    guest = Guest(program, directory, machine)
    with guest.boot() as process:
        process.wait_for_ticks(2, limit=100)
        set_up(process, channels=0, parameters={"max-bandwidth": 1 << 40})
        base = directory / "base.mig"
        process.execute("migrate", {"uri": f"file:{base}"})
        assert process.wait_for_status("completed", "failed") == "completed"
    guest.base = base
    return guest


@pytest.fixture
def machine() -> str:
    """The type of the guest's machine: the newest that this QEMU has. Tests name others by parametrizing it."""
    program = qemu_here()
    return "" if program is None else program.machine()


@pytest.fixture
def guest(booted: Callable[[str], Guest], machine: str, tmp_path: Path) -> Guest:
    """The guest, with a directory of the test's own for logs."""
    found = booted(machine)
    return Guest(found.qemu, tmp_path, found.machine, found.base)


@pytest.fixture
def source(guest: Guest) -> Iterator[QemuProcess]:
    """A QEMU in which the guest ticks."""
    with guest.source() as process:
        process.wait_for_ticks(1)
        yield process


@pytest.fixture
def stored(guest: Guest) -> Path:
    """A stream file of the running guest, written by QEMU."""
    assert guest.base is not None
    return guest.base
