"""Whether there is a QEMU, and the guest after it has booted: once for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qemu.qemu_guest import FILES, Guest, set_up
from tests.qemu.qemuprocess import QemuProcess, qemu_program

HERE = Path(__file__).parent
NEEDED = (FILES / "vmlinuz", FILES / "initramfs")


def what_is_missing() -> str:
    """Why these tests cannot run here; empty if they can."""
    if qemu_program() is None:
        return "no qemu-system-x86_64 of version 10 or later: tests/qemu/setup installs it"
    missing = [str(file) for file in NEEDED if not file.exists()]
    return f"no {' and no '.join(missing)}: tests/qemu/setup builds the guest" if missing else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory; where QEMU is a must, its absence fails them instead of skipping them."""
    reason = what_is_missing()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.qemu)
            if reason and not os.environ.get("MIGPOOL_QEMU_REQUIRED"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, with a stream file from which every test's source begins."""
    reason = what_is_missing()
    assert not reason, reason
    directory = tmp_path_factory.mktemp("qemu")
    program = qemu_program()
    assert program is not None
    guest = Guest(program, directory)
    with guest.boot() as qemu:
        qemu.wait_for_ticks(2, limit=100)
        set_up(qemu, channels=0, parameters={"max-bandwidth": 1 << 40})
        base = directory / "base.mig"
        qemu.execute("migrate", {"uri": f"file:{base}"})
        assert qemu.wait_for_status("completed", "failed") == "completed"
    guest.base = base
    yield guest
    base.unlink()


@pytest.fixture
def guest(booted: Guest, tmp_path: Path) -> Guest:
    """The guest, with a directory of the test's own for logs."""
    return Guest(booted.program, tmp_path, booted.base)


@pytest.fixture
def source(guest: Guest) -> Iterator[QemuProcess]:
    """A QEMU in which the guest ticks."""
    with guest.source() as qemu:
        qemu.wait_for_ticks(1)
        yield qemu


@pytest.fixture(scope="session")
def stored(booted: Guest) -> Path:
    """A stream file of the running guest, written by QEMU."""
    assert booted.base is not None
    return booted.base
