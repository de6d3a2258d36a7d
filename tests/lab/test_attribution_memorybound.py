"""What no threading model can go below where a machine has memory left at its stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migpool.lab.analysis.bound import bound_of, lower_bound
from migpool.lab.analysis.device_costs import DeviceCosts, device_costs
from migpool.migration.report import SideReport
from tests.support.attribution.made_downtimes import Rules
from tests.support.attribution.made_memory import Pages, made

MIB = 1 << 20

RAM = DeviceCosts(
    "ram", bytes=100 * MIB, iterable=False, stop=0.01, start=0.003, look=0.02, sync=0.005, page_rate=1000 * MIB
)
NIC = DeviceCosts("nic", stop=0.005, read=0.02, load_config=0.07, bytes=8 * MIB)


def test_the_last_pages_cross_at_the_best_rate_that_was_seen() -> None:
    bound = bound_of([RAM, NIC])
    assert bound.parts["memory"] == pytest.approx(10 + 5 + 20 + 100 + 5 + 3)
    assert bound.milliseconds == bound.parts["memory"]
    assert bound.limited_by == "memory: 100 MiB of pages at 1000 MiB/s"


def test_or_at_the_links_if_that_is_known() -> None:
    bound = bound_of([RAM, NIC], link_rate=200.0 * MIB)
    assert bound.parts["memory"] == pytest.approx(10 + 5 + 20 + 500 + 5 + 3)
    assert bound.parts["link"] == pytest.approx(10 + 5 + 540 + 3)
    assert bound.limited_by == "link: 108 MiB at its rate"


def test_little_memory_is_not_what_limits() -> None:
    bound = bound_of([replace(RAM, bytes=10 * MIB), NIC])
    assert bound.limited_by.startswith("nic: ")


def test_a_memory_has_no_config_that_a_save_could_be_the_last_before() -> None:
    saving = [replace(NIC, name=f"nic-{n}", save_config=0.1) for n in range(4)]
    assert bound_of([RAM, *saving]).parts["big lock, saving"] >= 400 + 70


def of_size(run: tuple[SideReport, SideReport], before: int, after: int) -> tuple[SideReport, SideReport]:
    source, destination = run
    devices = tuple(
        replace(device, bytes=before + after, bytes_before_stop=before) if device.name == "ram" else device
        for device in source.devices
    )
    return replace(source, devices=devices), destination


def ram_of(*runs: tuple[SideReport, SideReport]) -> DeviceCosts:
    return next(one for one in device_costs(runs) if one.name == "ram")


def test_the_rate_is_what_was_sent_over_the_time_in_which_something_was() -> None:
    run = of_size(made(Rules((), channels=1), Pages(jobs=3)), 0, 60 * MIB)
    found = ram_of(run)
    assert found.look == pytest.approx(0.004)
    assert found.sync == pytest.approx(0.0005)
    # The channel is busy for 120 ms; a look at a packet is at the same time as the sending of another.
    assert found.page_rate == pytest.approx(60 * MIB / 0.12, rel=0.01)
    bound = lower_bound([run])
    assert bound.parts["memory"] == pytest.approx(124.5, rel=0.01)
    source, destination = run
    assert bound.parts["memory"] <= (destination.running - source.stopped) / 1e6


def test_whichever_end_is_slower_bounds_and_the_best_run_counts() -> None:
    slow = of_size(made(Rules((), channels=1), Pages(jobs=1, receive=5.0)), 0, 60 * MIB)
    assert ram_of(slow).page_rate == pytest.approx(60 * MIB / 0.3, rel=0.01)
    quick = of_size(made(Rules((), channels=1), Pages(jobs=1, send=1.0)), 0, 60 * MIB)
    assert ram_of(slow, quick).page_rate == pytest.approx(60 * MIB / 0.06, rel=0.01)


def test_a_machine_that_left_nothing_has_no_bound_of_its_memory() -> None:
    run = made(Rules((), channels=1), Pages(packets=0))
    assert ram_of(run).page_rate == 0
    assert "memory" not in lower_bound([run]).parts
