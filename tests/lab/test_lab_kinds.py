"""A kind of wait is one record: whoever shows or counts waits knows every kind, and a new one needs no other file."""

from __future__ import annotations

import re
from pathlib import Path

from migpool.core import effects
from migpool.core.effects import Wait
from migpool.lab.analysis import kinds
from migpool.lab.analysis.kinds import BY_NAME, KINDS, WAITS
from migpool.lab.report.page.contents import contents
from tests.support.changed_copy import TESTS, found_with
from tests.support.lab_reports import lab_result_of, run


def test_every_wait_has_a_record_and_every_record_can_be_shown() -> None:
    assert WAITS.keys() == set(Wait)
    assert {one.kind for one in WAITS.values()} <= set(KINDS)
    signs = [one.mark for one in BY_NAME.values()]
    assert len(signs) == len(set(signs))
    assert len({one.colour for one in BY_NAME.values()}) == len(signs)
    assert all(re.fullmatch("#[0-9a-f]{6}", one.colour) and len(one.mark) == 1 for one in BY_NAME.values())


def test_the_page_knows_each_kind_and_how_it_looks() -> None:
    known = contents([lab_result_of(run("a", 1, 10.0))])["kinds"]
    assert isinstance(known, dict)
    assert list(known) == list(BY_NAME)
    assert known["credit"] == {
        "meaning": BY_NAME["credit"].meaning,
        "colour": "#d9a400",
        "waits": True,
        "layer": 3,
        "narrow": False,
    }


def test_the_docs_say_what_each_kind_is() -> None:
    text = (TESTS.parent / "docs" / "results.md").read_text("utf-8")
    table = text.partition("The kinds of wait in `attribution`:")[2].partition("\n\n`")[0]
    assert set(re.findall(r"`([a-z -]+)`", table)) == set(KINDS)


# What the record of a new kind and its use take: a member of Wait, a record, and the span, which the program records.
MEMBER = (effects, "    SYNC = 22\n", '    FROST = 90\n    """The device is frozen."""\n    SYNC = 22\n')
RECORD = (
    kinds,
    "    WaitKind(Wait.READ,",
    '    WaitKind(Wait.FROST, "frost", "a device was frozen", "F", "blue", "#123456", replay="read"),\n'
    "    WaitKind(Wait.READ,",
)
PROGRAM = """
import io, json
from dataclasses import replace
from tests.support.changed_copy import TESTS, found_with
from tests.support.lab_reports import lab_result_of, run
from tests.support.attribution.made_downtimes import Rules, alike, made
from rich.console import Console
from migpool.core.effects import Wait
from migpool.lab.analysis.why import analyse
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.report.chrome_trace import TracedRun, chrome_trace
from migpool.lab.report.page.document import document
from migpool.lab.report.time_line import switchover
from migpool.lab.analysis.whatif.recorded import recorded
from migpool.lab.analysis.whatif.resources import recording_of

def frozen(span):
    half = (span.begin + span.end) // 2
    return [replace(span, wait=Wait.FROST, end=half), replace(span, begin=half)]

source, destination = made(Rules(alike(2, chunks=4)))
read = [span.wait is Wait.READ for span in source.spans]
spans = [one for span, is_read in zip(source.spans, read) for one in (frozen(span) if is_read else [span])]
source = replace(source, spans=tuple(spans))
begin, end = source.stopped, destination.running
analysis = analyse(source, destination, 1 << 20)
result = lab_result_of(run("a", 1, (end - begin) / 1e6, analysis=analysis, devices=list(source.devices)))
stream = io.StringIO()
Console(file=stream, width=100).print(switchover(result, 100))
sides = recorded(source, begin, end), recorded(destination, begin, end)
half = next(span.duration for span in spans if span.wait is Wait.FROST)
page = document([result], "x")
print(json.dumps({
    "terminal": stream.getvalue(),
    "page": json.loads(page.partition('id="values">')[2].partition("</script>")[0]),
    "path": attribute(source, destination).kinds,
    "replay": sum(step.part == "read" and step.work == half for step in recording_of(*sides, end - begin, {}).steps),
    "trace": [event["name"] for event in chrome_trace([TracedRun(source, destination)])["traceEvents"]],
    "frozen": sum(span.wait is Wait.FROST for span in spans),
}))
"""


def test_a_new_kind_is_a_member_and_a_record_and_seen_everywhere(tmp_path: Path) -> None:
    found = found_with(tmp_path, [MEMBER, RECORD], PROGRAM)
    assert "F frost" in found["terminal"]
    assert re.search(r"src d0 .*F", found["terminal"])
    assert found["page"]["kinds"]["frost"]["colour"] == "#123456"
    assert any("frost" in lanes["words"] for lanes in found["page"]["parts"][0]["models"][0]["run"]["lanes"].values())
    assert found["path"]["frost"] > 0
    assert found["replay"] >= found["frozen"] > 0
    assert found["trace"].count("frost") >= found["frozen"]
