"""What a comparison of two commits says, of figures that are known."""

from __future__ import annotations

import pytest

from benchmarks.between import lines, page, rows_of, told
from migpool.experiments.verdict import median_interval


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.2, 1.21, 1.19, 1.2, 1.3, 1.25, 1.2], "slower"),
        ([0.8, 0.81, 0.79, 0.8, 0.7, 0.75, 0.8], "faster"),
        ([1.0, 1.01, 0.99, 1.0, 1.0, 1.01, 0.99], "as before"),
        ([0.9, 1.2, 1.0, 1.1, 0.8, 1.3, 0.95], "not sure"),
        ([2.0, 2.0], "not sure"),
    ],
)
def test_a_change_is_told_where_the_whole_interval_is_off(ratios: list[float], expected: str) -> None:
    assert told(median_interval(ratios)) == expected


def test_rows_are_of_what_both_have_and_the_page_shows_them() -> None:
    before = [{"a": 1e-6, "gone": 1.0}] * 7
    rows = rows_of(before, [{"a": 2e-6, "new": 1.0}] * 7)
    assert [(row["name"], row["ratio"], row["told"]) for row in rows] == [("a", 2.0, "slower")]
    found = {"before": "<x>", "now": "y", "when": "", "rounds": 7, "load": 0.0, "machine": "m", "rows": rows}
    assert list(lines(found))[-1] == "Slower: a"
    assert "&lt;x&gt; -&gt; y" in page([found])
