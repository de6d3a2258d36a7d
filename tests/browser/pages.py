"""Every kind of page that migpool writes, made of real results: for whoever looks at them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.between import page as benchmarks_page
from benchmarks.between import rows_of
from migpool.lab.qemu.explain import explain
from migpool.lab.report.page.document import document
from migpool.lab.run.result import LabResult
from tests.docs.blocks import block
from tests.support import DATA
from tests.support.commandline import here

TRACES: Final = DATA / "qemu-traces"


def explained(name: str) -> LabResult:
    logs = (TRACES / name / f"{side}.log.xz" for side in ("source", "destination"))
    return explain(*logs).result


def swept(folder: Path) -> str:
    """The page of the sweep that docs/sweeps.md shows."""
    (folder / "sweep.toml").write_text(block("docs/sweeps.md", "toml"))
    ended = here("lab", "sweep", str(folder / "sweep.toml"), "--results", str(folder / "sweep"), "--workers", "1")
    assert ended.code == 0, ended.err
    return (folder / "sweep" / "index.html").read_text("utf-8")


def benchmarks() -> str:
    """A page of two comparisons of commits."""
    name = "test_workerpool.py::test_cost_of_a_task[a rather long name of a contender, 4 workers]"
    slower = rows_of([{name: 1e-6, "b": 1e-3, "c": 1e-4}] * 7, [{name: 2e-6, "b": 5e-4, "c": 1e-4}] * 7)
    same = rows_of([{"b": 1e-3}] * 7, [{"b": 1e-3}] * 7)
    facts = {"when": "2026-11-30 12:00", "rounds": 7, "load": 0.3, "machine": "Linux 6.12, 2 CPUs, 24 GiB, Python 3.13"}
    return benchmarks_page(
        [
            {**facts, "before": "1a2b3c4", "now": which, "rows": rows}
            for which, rows in (("5d6e7f8", slower), ("9a0b1c2", same))
        ]
    )


KINDS: Final[dict[str, Callable[[LabResult, Path], str]]] = {
    "compare": lambda result, _: document([result], f"migpool: {result.scenario}"),
    "explain": lambda *_: document([explained("e1000e-16-views")], "migpool: explained"),
    "before-and-after": lambda *_: document([explained("vfio-2")], "migpool: after", before=explained("vfio-2-off")),
    "sweep": lambda _, folder: swept(folder),
    "bench-compare": lambda *_: benchmarks(),
}
"""A kind of page, and how one is made of a comparison's result, in a directory."""
