"""What is made of the driver's calls when loading is measured in the guest of ``make nested``, and of many rounds."""

from __future__ import annotations

import json
from dataclasses import asdict

from tests.nested.driver_calls import Call
from tests.nested.table import table
from tests.nested.test_nested_head_to_head import judged


def test_writes_side_by_side_are_counted_once() -> None:
    seen = [
        Call(1.000, 7, "write", {"size": "10"}),
        Call(1.001, 8, "write", {"size": "20"}),
        Call(1.003, 7, "written", {"size": "10"}),
        Call(1.004, 8, "written", {"size": "20"}),
        Call(1.010, 7, "write", {"size": "5"}),
        Call(1.012, 7, "written", {"size": "5"}),
        Call(1.020, 9, "set_state", {"state": "1"}),
        Call(1.030, 9, "set_state", {"state": "2"}),
    ]
    loaded = judged("QEMU", 2, 1, seen)
    assert (loaded.written, loaded.busy, loaded.running) == (12.0, 6.0, 30.0)
    assert (loaded.together, loaded.threads, loaded.writes, loaded.size) == (2, 2, 3, 35)


def test_a_table_has_medians_and_spreads_the_quickest_first() -> None:
    one = asdict(judged("pool", 1, 1, [Call(0.0, 1, "write", {}), Call(0.1, 1, "written", {"size": "1"}), RAN]))
    lines = ["tests ...", *(f"measured: {json.dumps({**one, 'written': took})}" for took in (30.0, 10.0, 20.0))]
    lines.append(f"measured: {json.dumps({**one, 'contender': 'QEMU', 'written': 5.0})}")
    found = table("\n".join(lines))
    assert [line.split(" | ")[1] for line in found[2:]] == ["QEMU", "pool"]
    assert "| 3 | 20 (10 to 30) |" in found[3]


RAN = Call(0.2, 1, "set_state", {"state": "2"})
