"""Whatever the spans are, the links partition the downtime, and the walk ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from migpool.core.effects import Wait
from migpool.lab.analysis.attribution import Attribution
from migpool.lab.analysis.critical_path import attribute
from migpool.lab.analysis.kinds import KINDS
from tests.support import LONG
from tests.support.attribution.attribution_spans import NAMES, Row, ns, side_report, split

SOURCE_WAITS = (
    Wait.STOP,
    Wait.QUEUED,
    Wait.ACQUIRE,
    Wait.READ,
    Wait.CREDIT,
    Wait.CHANNEL,
    Wait.SEND,
    Wait.LOCK,
    Wait.SAVE_CONFIG,
    Wait.SECTION,
)
THREADS = ("main", "w", "channel-0")


def assert_partition(whole: Attribution, begin: int, end: int) -> None:
    assert whole.links[0].begin == begin
    assert whole.links[-1].end == end
    for before, after in zip(whole.links, whole.links[1:], strict=False):
        assert before.end == after.begin
    assert all(link.begin < link.end and link.kind in KINDS for link in whole.links)
    assert all(link.device in ("", *NAMES) and link.behind in ("", *NAMES) for link in whole.links)
    assert sum(whole.nanoseconds.values()) == whole.downtime == end - begin


@st.composite
def any_spans(draw: st.DrawFn) -> list[Row]:
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 30))):
        begin = draw(st.integers(-5, 60))
        rows.append(
            (
                draw(st.sampled_from(list(Wait))),
                draw(st.integers(-1, 4)),
                draw(st.integers(-1, 3)),
                begin,
                begin + draw(st.integers(0, 20)),
                draw(st.sampled_from(THREADS)),
            )
        )
    return rows


@st.composite
def plausible_spans(draw: st.DrawFn, waits: tuple[Wait, ...]) -> list[Row]:
    """Threads that do one thing after the other, with pauses or none, and moments that coincide."""
    rows: list[Row] = []
    for thread in THREADS:
        now = draw(st.integers(0, 10))
        for _ in range(draw(st.integers(0, 15))):
            begin = now + draw(st.sampled_from((0, 0, 0, 1, 5)))
            now = begin + draw(st.sampled_from((0, 1, 2, 10)))
            slot = draw(st.integers(0, 4))
            rows.append((draw(st.sampled_from(waits)), slot, draw(st.integers(0, 3)), begin, now, thread))
    return rows


@given(any_spans(), any_spans(), st.integers(0, 30), st.integers(1, 40))
def test_any_spans_at_all(source: list[Row], destination: list[Row], stopped: int, length: int) -> None:
    whole = split(source, destination, stopped=stopped, running=stopped + length)
    assert_partition(whole, ns(stopped), ns(stopped + length))


DESTINATION_WAITS = (
    Wait.QUEUED,
    Wait.STARVED,
    Wait.RECEIVE,
    Wait.WRITE,
    Wait.LOADED,
    Wait.LOCK,
    Wait.LOAD_CONFIG,
    Wait.JOIN,
    Wait.START,
)


@given(plausible_spans(SOURCE_WAITS), plausible_spans(DESTINATION_WAITS), st.integers(1, 120))
def test_threads_that_do_one_thing_after_the_other(source: list[Row], destination: list[Row], running: int) -> None:
    assert_partition(split(source, destination, stopped=0, running=running), ns(0), ns(running))


def test_very_many_spans_of_a_device_that_waits_for_every_chunk() -> None:
    """Each chunk's way is four spans here and two there; the path goes over to the source and back for each."""
    source: list[Row] = [(Wait.STOP, 0, -1, 0, 1, "main")]
    destination: list[Row] = []
    chunks = 14_000 if LONG else 4_000
    for index in range(chunks):
        at = 1 + index * 10.0
        source += [
            (Wait.READ, 0, index, at, at + 2, "x"),
            (Wait.CREDIT, 0, index, at + 2, at + 2.5, "x"),
            (Wait.SEND, 0, index, at + 2.5, at + 4, "x"),
            (Wait.CREDIT, 0, index + 1, at + 4, at + 10, "x"),
        ]
        destination += [
            (Wait.STARVED, 0, index, at - 0.5, at + 6, "y"),
            (Wait.WRITE, 0, index, at + 6, at + 9, "y"),
            (Wait.LOADED, 0, index, at + 9, at + 9.5, "y"),
        ]
    end = 1 + chunks * 10.0
    destination.append((Wait.JOIN, -1, -1, 2, end, "main"))
    ours = side_report("source", source, stopped=0)
    theirs = side_report("destination", destination, running=end)
    whole = attribute(ours, theirs)
    assert_partition(whole, ns(0), ns(end))
    assert len(whole.links) < 8 * chunks
    # The first chunk's read, the others' (a credit allows the next read), and every write.
    assert whole.kinds["device read"] == 2 * chunks
    assert whole.kinds["device write"] == 3 * chunks
