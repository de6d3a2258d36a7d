"""How long a vCPU rests: it keeps its beat, does not hurry after a delay, and sleeps longer when it is throttled."""

from __future__ import annotations

import pytest

from migpool_plugins.guest.device import INTERVAL, VcpuPace


def test_a_batch_is_an_intervals_worth_of_pages() -> None:
    assert VcpuPace(2000, 4096).batch == 2000 * INTERVAL
    assert VcpuPace(1, 4096).batch == 1
    assert VcpuPace(10_000_000, 4096).batch == 4096
    assert VcpuPace(0, 64).batch == 64


def test_a_vcpu_without_a_rate_does_not_rest() -> None:
    assert VcpuPace(0, 64).rest(100.0, 100.5) == 0.0


def test_a_vcpu_that_wakes_late_keeps_its_beat() -> None:
    pace = VcpuPace(1000, 4096)
    assert pace.rest(10.0, 10.001) == pytest.approx(INTERVAL - 0.001)
    assert pace.rest(10.007, 10.008) == pytest.approx(10.010 - 10.008)


def test_a_vcpu_that_was_stopped_does_not_hurry() -> None:
    pace = VcpuPace(1000, 4096)
    pace.rest(10.0, 10.001)
    assert pace.rest(50.0, 50.001) == pytest.approx(INTERVAL - 0.001)
    assert pace.rest(50.005, 50.5) == 0.0


def test_a_throttled_vcpu_is_awake_for_the_rest_of_the_time_only() -> None:
    pace = VcpuPace(1000, 4096)
    pace.throttle = 0.75
    assert pace.rest(10.0, 10.001) == pytest.approx(4 * INTERVAL - 0.001)
    busy = VcpuPace(0, 64)
    busy.throttle = 0.75
    assert busy.rest(10.0, 10.01) == pytest.approx(0.03)
    busy.throttle = 0.0
    assert busy.rest(20.0, 20.01) == 0.0
