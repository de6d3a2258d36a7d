"""What a report says of a link."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from migpool.lab.report.link import over_time, rows
from migpool.lab.report.page.document import document
from migpool.lab.report.summary import foundations
from migpool.lab.report.table import render
from migpool.lab.run.link.use import LinkUse, RelayCost
from migpool.lab.run.result import RunResult
from migpool.transport.tcp_use import TcpUse
from tests.support.lab_reports import lab_result_of, run

MS = 1_000_000
MIB = 1 << 20


def connection(name: str, count: int, again: int = 0) -> TcpUse:
    return TcpUse(name, "cubic", count, again * 1448, again, 5.0, 4.0, 64_000, 50.0, 2.0, 3.0)


def linked(**more: object) -> RunResult:
    """A downtime of 100 ms, of which 50 MiB crossed in the second half."""
    counted = [(-50 * MS, 0), (50 * MS, 1 * MIB), (100 * MS, 51 * MIB), (150 * MS, 51 * MIB)]
    values: dict[str, object] = {
        "rate": 1000 * MIB,
        "delay_ms": 2.0,
        "jitter_ms": 0.5,
        "loss": 0.001,
        "queue_bytes": MIB,
        "mtu": 1500,
        "by": "veth, tbf",
        "dropped": 3,
        "forth": counted,
        **more,
    }
    uses = [connection("main", 1000), connection("0", 30 * MIB, 10), connection("1", 10 * MIB)]
    return run("pool", 1, 100.0).model_copy(update={"link": LinkUse.model_validate(values), "connections": uses})


def told(one: RunResult) -> dict[str, str]:
    return dict(foundations(lab_result_of(one)))


def test_a_report_says_what_a_link_was_and_how_full() -> None:
    facts = told(linked())
    assert facts["Link"] == (
        "1000 MiB/s each way, 2.00 ms one way (more or less up to 0.50 ms), 0.1 % lost, a queue of 1.0 MiB, MTU 1500; "
        "made by veth, tbf"
    )
    use = facts.get("Link use", "")
    assert "10 packets sent anew" in use
    assert "3 found no room in a queue" in use
    assert "had 75, 25 % of it" in use
    assert "Relay" not in facts
    assert "Clock offset" not in facts


@pytest.mark.parametrize(("overrun", "late", "warned"), [(0, 0.2, False), (0, 1.5, True), (7, 0.2, True)])
def test_a_relay_that_did_not_keep_up_is_a_warning(overrun: int, late: float, warned: bool) -> None:
    cost = RelayCost(packets=9, lost=1, overrun=overrun, late_ms=0.03, late_99_ms=late, cpu_ms=40.0)
    facts = told(linked(relay=cost))
    assert "0.03 ms too late in the median" in facts["Relay"]
    assert ("did not keep up" in facts.get("Warning", "")) is warned


def test_an_offset_of_the_clocks_says_by_how_much_downtimes_are_off() -> None:
    facts = told(linked(clock_offset_ms=3000.0, true_downtime_ms=98.5))
    assert facts["Clock offset"] == "the destination's clock is 3000 ms ahead; downtimes are at most 1.50 ms off"


def test_the_use_over_time_is_between_two_looks_at_the_counters() -> None:
    drawn = over_time(linked())
    assert len(drawn) == 200
    first, last = drawn[0], drawn[-1]
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert first[1] == pytest.approx(10.0, rel=0.01)  # 1 MiB in 100 ms
    assert last[1] == pytest.approx(1000.0, rel=0.01)  # 50 MiB in 50 ms
    assert over_time(run("pool", 1, 100.0)) == []


def test_terminal_page_and_file_have_it() -> None:
    whole = lab_result_of(linked())
    stream = io.StringIO()
    Console(file=stream, width=120).print(render(whole, 120))
    assert "1000 MiB/s each way" in stream.getvalue()
    assert "1000 MiB/s each way" in document([whole], "t")
    kept = json.loads(whole.to_json())["runs"][0]
    assert kept["link"]["forth"][2] == [100 * MS, 51 * MIB]
    assert [one["name"] for one in kept["connections"]] == ["main", "0", "1"]
    assert RunResult.model_validate(kept) == linked()
    assert rows(linked())[1][:4] == ["channel 0", "30.0 MiB", "75 %", "10 packets"]
