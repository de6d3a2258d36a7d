"""What a real source makes of a destination that does not do as it should: what this project relies on."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.wire.returnpath import Pong, Shut, SwitchoverAck
from tests.qemu.otherdestination import OtherDestination
from tests.qemu.qemu_guest import continues, set_up
from tests.qemu.qemuprocess import OLDEST, QemuProcess, WaitedTooLong, qemu_here

ACKNOWLEDGED = ("return-path", "switchover-ack")
SLOW = {"max-bandwidth": 8 << 20}
PROGRAM = qemu_here()
NEW = PROGRAM is not None and PROGRAM.version >= (11, 1)


@pytest.fixture
def machine() -> str:
    """A type whose sources wait for an acknowledgement; types from 11.1 on have tests of their own."""
    return "" if PROGRAM is None else PROGRAM.machine(version=(OLDEST, 0))


def test_without_return_path_it_completes_when_all_is_read(source: QemuProcess, tmp_path: Path) -> None:
    set_up(source, channels=2)
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        assert source.wait_for_status("completed", "failed") == "completed"


def test_multifd_channels_that_are_closed_early_fail_it_and_the_guest_goes_on(
    source: QemuProcess, tmp_path: Path
) -> None:
    set_up(source, channels=2, parameters={**SLOW})
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        other.wait_for_all()
        other.close(main=False)
        assert source.wait_for_status("completed", "failed") == "failed"
    assert continues(source.wait_for_ticks(2))


@pytest.mark.parametrize("error", [0, 1])
def test_a_shut_and_a_closed_connection_before_the_end_fail_it_and_the_guest_goes_on(
    source: QemuProcess, tmp_path: Path, error: int
) -> None:
    set_up(source, channels=2, capabilities=ACKNOWLEDGED, parameters={**SLOW})
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        other.wait_for_all()
        other.answer(Shut(error))
        other.close(main=True)
        assert source.wait_for_status("completed", "failed") == "failed"
    assert continues(source.wait_for_ticks(2))


def test_a_shut_with_an_error_fails_it_at_its_end_and_the_guest_goes_on(source: QemuProcess, tmp_path: Path) -> None:
    set_up(source, channels=2, capabilities=ACKNOWLEDGED)
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        other.wait_for_all()
        other.answer(SwitchoverAck(), Pong(1), Shut(1))
        assert source.wait_for_status("completed", "failed") == "failed"
    assert continues(source.wait_for_ticks(2))


def test_without_acknowledgement_it_goes_through_memory_for_ever_until_cancelled(
    source: QemuProcess, tmp_path: Path
) -> None:
    set_up(source, channels=2, capabilities=ACKNOWLEDGED)
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        source.wait_for_pass(6)
        assert source.running()
        assert source.migration()["status"] == "active"
        source.execute("migrate_cancel")
        # Which of the two, QEMU leaves to chance: cancelling ends its channels, and a channel's thread that finds
        # its own ended at the wrong moment calls the migration failed (once in seven runs of 10.0).
        assert source.wait_for_status("completed", "failed", "cancelled") in ("cancelled", "failed")
    assert continues(source.wait_for_ticks(2))


def test_acknowledged_but_never_told_the_end_it_waits_with_the_guest_stopped(
    source: QemuProcess, tmp_path: Path
) -> None:
    set_up(source, channels=2, capabilities=ACKNOWLEDGED)
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        other.wait_for_all()
        other.answer(SwitchoverAck(), Pong(1))
        source.wait_for_status("device")
        with pytest.raises(WaitedTooLong):
            source.wait_for_status("completed", "failed", limit=3)
        assert not source.running()
        other.answer(Shut(0))
        assert source.wait_for_status("completed", "failed") == "completed"


of_its_own = pytest.mark.parametrize("machine", [PROGRAM.machine() if PROGRAM is not None else ""])


@of_its_own
@pytest.mark.skipif(not NEW, reason="types of machines before 11.1 take any acknowledgement")
@pytest.mark.parametrize("capabilities", [("return-path",), ACKNOWLEDGED])
def test_from_11_1_on_it_fails_of_an_acknowledgement_that_no_device_asks_for(
    source: QemuProcess, tmp_path: Path, capabilities: tuple[str, ...]
) -> None:
    set_up(source, channels=2, capabilities=capabilities, parameters={**SLOW})
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        other.wait_for_all()
        other.answer(SwitchoverAck())
        other.close(main=False)
        assert source.wait_for_status("completed", "failed") == "failed"
    assert continues(source.wait_for_ticks(2))


@of_its_own
@pytest.mark.skipif(not NEW, reason="types of machines before 11.1 wait for an acknowledgement")
def test_from_11_1_on_it_completes_without_one(source: QemuProcess, tmp_path: Path) -> None:
    set_up(source, channels=2, capabilities=ACKNOWLEDGED)
    with OtherDestination(tmp_path / "o", 2) as other:
        source.execute("migrate", {"uri": other.uri})
        source.wait_for_status("device")
        other.answer(Pong(1), Shut(0))
        assert source.wait_for_status("completed", "failed") == "completed"
