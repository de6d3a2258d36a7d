"""Ends with different numbers of multifd channels: both say so, whoever has more."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.receiver import ReceiverScheduler
from migpool.transport.address import Address
from tests.support.recording_rig import FAMILIES, Waiting, devices
from tests.support.rig import KIB


def send(address: Address, channels: int) -> SideReport:
    """A source's report."""
    settings = Settings(channels=channels, chunk=16 * KIB, budget=256 * KIB, peer_limit=20, connect_limit=10)
    return Source(Machine("machine", devices(2)), settings, ReceiverScheduler()).run(address)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("there", "here"), [(2, 4), (1, 9), (3, 4)])
def test_a_source_with_more_is_told_at_both_ends(tmp_path: Path, family: str, there: int, here: int) -> None:
    waiting = Waiting(tmp_path, devices(2, state=False), family=family, channels=there)
    sent = send(waiting.address, here)
    got = waiting.report()
    told = f"the destination took {there} of {here} multifd channels: both ends need the same number of channels"
    assert sent.outcome is got.outcome is State.FAILED
    assert told in sent.error
    assert got.error == told


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("there", "here"), [(4, 2), (9, 1)])
def test_a_source_with_fewer_is_told_at_both_ends(tmp_path: Path, family: str, there: int, here: int) -> None:
    waiting = Waiting(tmp_path, devices(2, state=False), family=family, channels=there, connect_limit=1.5)
    sent = send(waiting.address, here)
    got = waiting.report()
    told = f"the source opened {here} of {there} multifd channels and the main channel within 1.5 s: both ends need"
    assert sent.outcome is got.outcome is State.FAILED
    assert told in sent.error
    assert got.error.startswith(told)
