"""Made logs of which one thing alone limits the downtime: the first sentence names it, and what it promises is true."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from migpool.lab.qemu.explain import explain
from migpool.lab.report.explained import render_explained
from migpool.lab.report.table import device_times
from tests.support.qemu_logs import Downtime, Log, Threaded, real

SMALL = [("ram", 60, 60), *((f"0000:00:{at:02x}.0/x{at}", 40 + at, 40 + at) for at in range(6))]
CULPRITS = (
    "slow save",
    "slow load",
    "cards load",
    "cards save",
    "RAM",
    "channel",
    "behind",
    "stop",
    "start",
    "tail",
    "network",
    "none",
)


def made(culprit: str, size: int, count: int) -> tuple[Downtime, str]:
    """A downtime with one culprit of about ``size`` microseconds, and what must be said of it."""
    each = size // count
    match culprit:
        case "slow save":
            return Downtime([*SMALL, ("0000:01:00.0/slow", size, 50)]), "0000:01:00.0/slow takes"
        case "slow load":
            return Downtime([*SMALL, ("0000:01:00.0/slow", 50, size)]), "0000:01:00.0/slow takes"
        case "cards load":
            cards = [(f"0000:02:{at:02x}.0/card", 20, each) for at in range(count)]
            return Downtime([*SMALL, *cards]), f"the {count} card are loaded one after the other"
        case "cards save":
            cards = [(f"0000:02:{at:02x}.0/card", each, 20) for at in range(count)]
            return Downtime([*SMALL, *cards]), f"the {count} card are saved one after the other"
        case "RAM":
            return Downtime([("ram", size, 60), *SMALL[1:]]), "the last round of RAM takes"
        case "channel":
            return Downtime(
                SMALL, channel=size
            ), "the last round of RAM waits for multifd channel 0|the last round of RAM"
        case "behind":
            return Downtime(SMALL, behind=size + 3000), "the destination is still loading what was sent before the stop"
        case "stop":
            return Downtime(SMALL, stop=size), "the machine as a whole takes long to stop"
        case "start":
            return Downtime(SMALL, start=size), "the machine as a whole takes long to start"
        case "tail":
            return Downtime(SMALL, tail=size), "after the last device QEMU is not done with loading"
        case "network":
            return Downtime(SMALL, network=size), "what is sent is read late|still load"
        case _:
            even = [(f"0000:00:{at:02x}.0/x{at}", 100, 100) for at in range(2)]
            return Downtime(
                [("ram", 30, 30), *even], stop=100, start=100
            ), "all 2 devices|no one thing|0000:00:0[01].0/x[01] takes"


@given(
    culprit=st.sampled_from(CULPRITS),
    size=st.integers(20_000, 400_000),
    count=st.integers(4, 20),
    ahead=st.sampled_from([0, 0, 5_000_000, -80_000]),
    dated=st.booleans(),
)
def test_the_first_sentence_names_the_one_culprit(
    tmp_path_factory: pytest.TempPathFactory, culprit: str, size: int, count: int, ahead: int, dated: bool
) -> None:
    downtime, said = made(culprit, size, count)
    downtime = replace(downtime, ahead=ahead, dated=dated)
    source, destination, took = downtime.logs(tmp_path_factory.mktemp("logs"))
    (run,) = explain(source, destination).result.runs
    assert run.analysis is not None
    assert run.downtime_ms == pytest.approx(took / 1e3, abs=0.2)  # so far can shifted clocks be off
    assert re.match(said, run.analysis.why), (run.analysis.why, run.attribution)
    assert len(run.analysis.why) < 200


@given(size=st.integers(20_000, 400_000), share=st.sampled_from([0.0, 0.02, 0.2, 0.35, 0.65, 0.8, 0.95]))
def test_what_may_be_the_tracing_itself_is_never_told_for_sure(
    tmp_path_factory: pytest.TempPathFactory, size: int, share: float
) -> None:
    """A device that is slow to load, of which a share is the lines that are written meanwhile."""
    each = int(size * share / 600)
    downtime = Downtime([*SMALL, ("0000:01:00.0/slow", 50, size)], told={"0000:01:00.0/slow": (600, each)})
    source, destination, took = downtime.logs(tmp_path_factory.mktemp("logs"))
    (run,) = explain(source, destination).result.runs
    assert run.analysis is not None
    why, traced = run.analysis.why, 600 * each
    tracing = [one for one in run.analysis.resources if one.resource == "the trace's own lines"]
    assert sum(one.shorter_ms for one in tracing) == pytest.approx(traced / 1e3, rel=0.06, abs=0.1)  # and of all others
    assert why.startswith("the lines of the trace themselves") is (share > 0.5)
    assert why.startswith("0000:01:00.0/slow takes") is (share < 0.5)
    assert ("Not sure: at least" in why) is (traced > 0.1 * took and share < 0.5)
    assert any("are the tracing itself" in line for line in run.remarks) is (traced > 0.1 * took)


@pytest.mark.parametrize("name", ["vfio-2", "vfio-2-off"])
def test_of_a_nested_machine_whose_every_line_was_traced_the_tracing_is_named(name: str) -> None:
    (run,) = explain(*real(name)).result.runs
    assert run.analysis is not None
    assert run.analysis.why.startswith("the lines of the trace themselves")


def test_what_one_device_less_would_save_is_what_it_saves(tmp_path: Path) -> None:
    devices = [*SMALL, ("0000:01:00.0/slow", 7000, 9000)]
    source, destination, took = Downtime(devices).logs(tmp_path)
    (run,) = explain(source, destination).result.runs
    _, _, less = Downtime(SMALL).logs(tmp_path)
    assert run.analysis is not None
    promised = next(one for one in run.analysis.resources if one.devices == ["0000:01:00.0/slow"])
    assert promised.shorter_ms == pytest.approx((took - less) / 1e3)


def test_cards_that_take_longer_and_longer_are_told_and_one_that_was_held_up_is_not(tmp_path: Path) -> None:
    def growth(*loads: int) -> list[float]:
        cards = [(f"0000:02:{at:02x}.0/card", 10, load) for at, load in enumerate(loads)]
        source, destination, _ = Downtime([("ram", 10, 10), *cards]).logs(tmp_path)
        (run,) = explain(source, destination).result.runs
        assert run.analysis is not None
        return [one.shorter_ms for one in run.analysis.resources if one.resource == "each card like the first"]

    assert growth(*(1000 + 200 * at for at in range(8))) == [pytest.approx(0.2 * sum(range(8)))]
    assert growth(*[1000] * 7, 40_000) == []
    assert growth(*[1000] * 8) == []


@given(
    cards=st.lists(st.tuples(st.integers(2, 20), st.integers(20, 90), st.integers(0, 900)), min_size=1, max_size=9),
    dated=st.booleans(),
)
def test_flat_views_built_once_save_what_the_others_took(
    tmp_path_factory: pytest.TempPathFactory, cards: list[tuple[int, int, int]], dated: bool
) -> None:
    loads = [(f"0000:02:{at:02x}.0/card", 10, count * each + rest) for at, (count, each, rest) in enumerate(cards)]
    views = {name: (count, each) for (name, _, _), (count, each, _) in zip(loads, cards, strict=True)}
    downtime = Downtime([("ram", 10, 10), *loads, ("0000:00:1f.0/bridge", 10, 400)], views=views, dated=dated)
    source, destination, _ = downtime.logs(tmp_path_factory.mktemp("logs"))
    (run,) = explain(source, destination).result.runs
    assert run.analysis is not None
    took = sum(count * each for count, each in views.values())
    rebuild = min(count for count, _ in views.values()) * max(each for _, each in views.values())
    found = [one.shorter_ms for one in run.analysis.resources if one.resource == "flat views built once"]
    assert sum(found) == pytest.approx(max(0, took - rebuild) / 1e3, abs=0.01)
    assert any(f"{sum(count for count, _ in views.values())} flat views of memory" in line for line in run.remarks)


def test_without_flat_views_in_the_log_nothing_is_said_of_them(tmp_path: Path) -> None:
    source, destination, _ = Downtime(SMALL).logs(tmp_path)
    (run,) = explain(source, destination).result.runs
    assert run.analysis is not None
    assert not any("flat views" in text for text in (*run.remarks, *(one.resource for one in run.analysis.resources)))


def test_side_by_side_is_as_long_as_the_longest(tmp_path: Path) -> None:
    cards = [(f"0000:02:{at:02x}.0/card", 10, 1000 + 100 * at) for at in range(4)]
    source, destination, _ = Downtime([("ram", 10, 10), *cards]).logs(tmp_path)
    (run,) = explain(source, destination).result.runs
    assert run.analysis is not None
    found = next(
        one for one in run.analysis.resources if (one.resource, one.side) == ("card in parallel", "destination")
    )
    assert found.shorter_ms == pytest.approx((1000 + 1100 + 1200 + 1300 - 1300) / 1e3)


def test_vfio_threads_that_wait_for_each_others_configs_are_told_so(tmp_path: Path) -> None:
    source, destination, took = Threaded(count=4, config=70_000).logs(tmp_path)
    (run,) = explain(source, destination).result.runs
    assert run.analysis is not None
    assert run.downtime_ms == pytest.approx(took / 1e3)
    assert sum(run.attribution.values()) == pytest.approx(took / 1e3)
    assert run.attribution["lock"] == pytest.approx(210, abs=1)  # of the last one, behind the three before
    assert run.analysis.why.startswith("configs of VFIO devices wait for the big lock. Without that: ")
    lock = next(one for one in run.analysis.resources if one.resource == "big lock")
    assert lock.shorter_ms == pytest.approx(210, abs=1)
    names = [f"0000:0{number}:00.0/vfio" for number in range(1, 5)]
    times = device_times(run.analysis, run.devices)
    assert [times[name].held for name in names] == [{names[-1]: pytest.approx(70, abs=1)}] * 3 + [{}]
    assert [times[name].path for name in names] == pytest.approx([70] * 4, abs=3)
    shown = io.StringIO()
    Console(file=shown, width=120).print(render_explained(explain(source, destination).result, 120))
    assert f"{names[1]} held it, {names[-1]} waited" in shown.getvalue()
    assert "Waited for its lock" in shown.getvalue()
    assert "Switchover   source.log and destination.log, a column is" in shown.getvalue()


def test_a_destination_that_is_held_up_after_it_was_behind_did_not_wait_for_the_source(tmp_path: Path) -> None:
    """At 116 ms it has the last round of before the stop, reads on a moment later, and all that it reads is there."""
    ours, theirs = Log(), Log()
    ours.say(-900, "multifd_send_fill channel 0 packet_num 3 flags 0x0 next packet size 4096", 7)
    theirs.say(-890, "multifd_recv_unfill channel 0 packet_num 3 flags 0x0 next packet size 4096", 8)
    ours.say(0, "vmstate_downtime_checkpoint src-downtime-start")
    ours.say(500, "vmstate_downtime_checkpoint src-vm-stopped")
    ours.say(600, "vmstate_downtime_save type=iterable idstr=ram instance_id=0 downtime=100")
    ours.say(600, "vmstate_downtime_checkpoint src-iterable-saved")
    ours.say(700, "vmstate_downtime_save type=non-iterable idstr=first instance_id=0 downtime=100")
    ours.say(117_000, "vmstate_downtime_save type=non-iterable idstr=second instance_id=0 downtime=116300")
    ours.say(117_010, "vmstate_downtime_checkpoint src-non-iterable-saved")
    theirs.say(-2000, "qemu_loadvm_state_section_startfull 1(ram) 0 4")
    theirs.say(-800, "qemu_loadvm_state_section 2")
    theirs.say(-799, "qemu_loadvm_state_section_partend 1")
    theirs.say(-790, "multifd_recv_sync_main_wait iter 0")
    theirs.say(116_000, "multifd_recv_sync_main packet num 18")
    theirs.say(116_170, "qemu_loadvm_state_section 3")
    theirs.say(116_300, "vmstate_downtime_load type=iterable idstr=ram instance_id=0 downtime=120")
    for at, name, took in ((116_301, "first", 2700), (119_002, "second", 1000)):
        theirs.say(at, "qemu_loadvm_state_section 4")
        theirs.say(at + took, f"vmstate_downtime_load type=non-iterable idstr={name} instance_id=0 downtime={took}")
    theirs.say(120_100, "vmstate_downtime_checkpoint dst-precopy-loadvm-completed")
    theirs.say(120_500, "vmstate_downtime_checkpoint dst-precopy-bh-vm-started")
    (run,) = explain(ours.write(tmp_path / "source.log"), theirs.write(tmp_path / "destination.log")).result.runs
    assert run.analysis is not None
    assert run.attribution["pre-copied"] == pytest.approx(116, abs=0.5)
    assert "the source" not in run.analysis.why
    assert run.analysis.why.startswith("no one thing. The largest part is pre-copied")  # the source was as slow


@pytest.mark.parametrize(("slow", "kind"), [({"read": 90_000}, "device read"), ({"load": 90_000}, "device write")])
def test_the_path_goes_through_vfios_threads_of_both_sides(tmp_path: Path, slow: dict[str, int], kind: str) -> None:
    source, destination, took = Threaded(**slow).logs(tmp_path)
    (run,) = explain(source, destination).result.runs
    assert next(iter(run.attribution)) == kind
    assert run.attribution[kind] == pytest.approx(90, abs=2)
    assert sum(run.attribution.values()) == pytest.approx(took / 1e3)
    assert run.analysis is not None
    assert run.analysis.replayed_ms == pytest.approx(took / 1e3)
    assert {link.device for link in run.analysis.path if link.kind == kind} <= {
        f"0000:0{number}:00.0/vfio" for number in range(1, 5)
    }
