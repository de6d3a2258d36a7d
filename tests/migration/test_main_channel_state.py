"""Iterable devices whose state crosses on the main channel, beside others' and pages on the multifd channels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.migration.destination import Destination
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.scenario.model_syntax import all_models, parse_model
from migpool.schedulers.inline import InlineScheduler
from migpool.transport.address import Address
from tests.support.paper import Paper
from tests.support.rig import KIB, Pair, Scripted, contents

SETTINGS = Settings(channels=2, chunk=16 * KIB, budget=512 * KIB, peer_limit=60)


class Growing(Scripted):
    """What it gives before the stop and after it together is its state: so it has no fingerprint to compare."""

    def fingerprint(self) -> bytes | None:
        return None


def machine(*, filled: bool, here: tuple[int, ...] = (0, 2)) -> tuple[Paper, list[Scripted]]:
    """Memory, three devices, some of which cross on the main channel, and a plain one."""
    paper = Paper(40)
    devices: list[Scripted] = [Growing(number, contents(70 * KIB, number) if filled else b"") for number in range(3)]
    for number in here:
        devices[number].config_channel = "main-channel"
    if filled:
        for page in range(0, 40, 3):
            paper.write(0, page, contents(4096, page + 1))
        devices[0].precopy, devices[0].initial = contents(20 * KIB, 8), 20 * KIB
        devices[1].precopy = contents(20 * KIB, 9)
    return paper, [*devices, Growing(9, None, name="plain")]


@pytest.mark.parametrize("credited", [True, False], ids=["credits", "QEMU's return path"])
@pytest.mark.parametrize("name", [*all_models(), "pool:1"])
def test_it_arrives_whole_beside_what_crosses_over_the_channels(tmp_path: Path, name: str, credited: bool) -> None:
    paper, source = machine(filled=True)
    copy, destination = machine(filled=False)
    early = [bytes(device.precopy) for device in source]
    model = parse_model(name)
    pair = Pair(
        [paper, *source],
        [copy, *destination],
        settings=replace(SETTINGS, credits=credited),
        models=(model.source.make, model.destination.make),
        workers=(model.source.workers, model.destination.workers),
    )
    sent, got = pair.run(tmp_path)
    assert (sent.error, got.error) == ("", "")
    assert sent.outcome is got.outcome is State.COMPLETED
    assert copy.contents() == paper.contents()
    for ours, theirs, first in zip(source, destination, early, strict=True):
        assert (bytes(theirs.got), theirs.got_config) == (first + bytes(ours.state), ours.config)


@pytest.mark.parametrize("end", [Source, Destination])
def test_it_has_no_rounds_over_the_channels(tmp_path: Path, end: type[Source | Destination]) -> None:
    paper, devices = machine(filled=True)
    how = replace(SETTINGS, live="multifd")
    report = end(Machine("machine", [paper, *devices]), how, InlineScheduler()).run(Address(path=str(tmp_path / "s")))
    assert report.outcome is State.FAILED
    assert (
        report.error == 'device-0, device-2 must stay on the main channel, but live = "multifd": leave one of both out'
    )
