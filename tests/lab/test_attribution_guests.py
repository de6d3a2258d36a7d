"""Real machines with memory: what is said of their downtime is whole, near, and names what was slow."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.core.effects import Wait
from migpool.device import Device
from migpool.lab.analysis.bound import lower_bound
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.page_jobs import page_jobs_of, with_page_jobs
from migpool.lab.analysis.whatif.resources import replays
from migpool.lab.report.chrome_trace import TracedRun, chrome_trace
from migpool.migration.report import SideReport
from migpool.schedulers.base import Scheduler
from migpool.schedulers.elastic import ElasticScheduler
from migpool.schedulers.inline import InlineScheduler
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.schedulers.poll import PollScheduler
from migpool.schedulers.pool import PoolScheduler
from migpool.schedulers.receiver import ReceiverScheduler
from tests.support.guests import guest
from tests.support.measured import undisturbed
from tests.support.paper import PAGE, Paper
from tests.support.rig import KIB, Pair, Scripted, contents
from tests.support.thinned import every_value

pytestmark = pytest.mark.alone  # what is measured is compared with what is reckoned from it

PAGES = 3000
LATE = 2000
"""Pages that are written when the first round is over, and so are left at the stop."""

MODELS: list[tuple[type[Scheduler], type[Scheduler]]] = [
    (InlineScheduler, InlineScheduler),
    (PerDeviceScheduler, PerDeviceScheduler),
    (PoolScheduler, ReceiverScheduler),
    (ElasticScheduler, PoolScheduler),
    (PollScheduler, PollScheduler),
]


class Late(Paper):
    """A paper that is slow to say what has been written, once it has been written late.

    Arguments:
        seconds: how slow.
    """

    def __init__(self, pages: int, seconds: float = 0.0) -> None:
        super().__init__(pages)
        self.written_late = False
        self._seconds = seconds

    def scribble(self, count: int) -> None:
        numbers = random.Random(count)
        for page in range(count):
            self.write(0, page, numbers.randbytes(PAGE))
        self.written_late = count == LATE

    def take_dirty(self, block: int) -> bytes:
        if self.written_late:
            time.sleep(self._seconds)
        return super().take_dirty(block)


def migrated(
    models: tuple[type[Scheduler], type[Scheduler]], together: bool, where: Path, seconds: float = 0.0
) -> tuple[SideReport, SideReport]:
    """Both ends' reports of a machine of which ``LATE`` pages and some state are left at the stop."""
    paper = Late(PAGES, seconds)
    paper.scribble(PAGES)
    paper.take_dirty(0)  # every page goes in the first round anyway
    state = contents(700 * KIB)
    here: list[Device] = [paper, Scripted(1, state)]
    pair = Pair(here, [Paper(PAGES), Scripted(1)], models=models, progress=lambda _: paper.scribble(LATE))
    pair.settings = replace(pair.settings, together=together, downtime_limit=30.0, rounds=1)
    sent, received = pair.run(where)
    assert (sent.error, received.error) == ("", "")
    assert sent.devices[0].bytes_after_stop == LATE * PAGE
    return sent, received


@pytest.mark.parametrize(("models", "together"), every_value(MODELS, [True, False]))
def test_the_downtime_of_a_machine_with_memory_is_told_whole_and_replayed(
    models: tuple[type[Scheduler], type[Scheduler]], together: bool, tmp_path: Path
) -> None:
    def check(place: Path) -> None:
        source, destination = migrated(models, together, place)
        whole = attribute(source, destination)
        assert sum(whole.nanoseconds.values()) == destination.running - source.stopped
        assert not {"other", "starved"} & whole.kinds.keys()
        found = replays(source, destination)
        assert found is not None
        assert found.replayed == pytest.approx(found.downtime, rel=0.25)
        bound = lower_bound([(source, destination)])
        assert 0 < bound.parts["memory"] <= whole.downtime / 1e6

    undisturbed(check, tmp_path)


def test_each_packet_after_the_stop_is_known_at_both_ends(tmp_path: Path) -> None:
    source, destination = migrated(MODELS[3], True, tmp_path)
    ours, theirs = with_page_jobs(source, destination)
    jobs = page_jobs_of(ours)
    sent = [(span.slot, span.index) for span in ours.spans if span.wait is Wait.SEND and span.slot in jobs]
    came = [(span.slot, span.index) for span in theirs.spans if span.wait is Wait.RECEIVE and span.slot in jobs]
    assert len(sent) == len(set(sent)) >= LATE // 128
    assert sorted(sent) == sorted(came)
    begun = [span for span in ours.spans if span.wait is Wait.QUEUED and span.slot in jobs]
    assert len(begun) == len(jobs), "a job is taken up once"


def test_an_arrow_leads_from_each_packet_to_where_it_was_received(tmp_path: Path) -> None:
    source, destination = migrated(MODELS[2], True, tmp_path)
    events = json.loads(json.dumps(chrome_trace([TracedRun(source, destination, "run")])))["traceEvents"]
    begins = [event for event in events if event["ph"] == "s"]
    packets = sum(span.wait is Wait.SEND and span.slot == 0 for span in source.spans)
    chunks = sum(span.wait is Wait.SEND and span.slot == 1 for span in source.spans)
    assert len(begins) == packets + chunks


def test_a_log_that_is_slow_to_answer_is_what_the_downtime_went_into(tmp_path: Path) -> None:
    source, destination = migrated(MODELS[1], True, tmp_path, seconds=0.15)
    whole = attribute(source, destination)
    looked = [link for link in whole.links if link.kind == "scan" and link.duration >= 150_000_000]
    assert [(link.device, link.side, link.index) for link in looked] == [("ram", "source", -1)]
    bound = lower_bound([(source, destination)])
    assert bound.limited_by.startswith("memory: 7.8 MiB of pages at ")
    assert bound.milliseconds >= 150


@pytest.mark.parametrize("backend", ["kvm", "unicorn"])
def test_a_guest_that_runs_is_looked_into_like_any_machine(backend: str, tmp_path: Path) -> None:
    with guest("source", backend) as here, guest("destination", backend) as there:
        source, destination = Pair(here, there).run(tmp_path)
    assert (source.error, destination.error) == ("", "")
    whole = attribute(source, destination)
    assert sum(whole.nanoseconds.values()) == destination.running - source.stopped
    assert {"ram"} <= {link.device for link in whole.links if link.kind in ("scan", "send", "network", "sync")}
    assert not {"other", "starved"} & whole.kinds.keys()
    found = replays(source, destination)
    assert found is not None
    assert found.replayed == pytest.approx(found.downtime, rel=0.25)
