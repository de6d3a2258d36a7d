"""The gallery's pages: what ``migpool explain --report`` makes of logs in ``tests/data``, with one plotting library."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from plotly.offline import get_plotlyjs

from migpool.lab.qemu.explain import explain
from migpool.lab.report.page.document import document

LOGS: Final = {
    "idle": "idle",
    "busy": "busy",
    "sixteen-cards": "e1000e-16-views",
    "vfio-off": "vfio-2-off",
    "vfio-on": "vfio-2",
}
"""The logs of each page."""
LIBRARY: Final = "plotly.min.js"


def make(top: Path, directory: Path) -> None:
    """Write every page.

    Arguments:
        top: the project's.
        directory: for the pages.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / LIBRARY).write_text(get_plotlyjs(), "utf-8")
    for name, logs in LOGS.items():
        where = top / "tests" / "data" / "qemu-traces" / logs
        found = explain(where / "source.log.xz", where / "destination.log.xz").result
        result = found.model_copy(update={"scenario": name.replace("-", " ")})
        page = document([result], f"migpool: {name}", library=LIBRARY)
        # The report stands alone everywhere else; here it belongs to a site, and leads back.
        title, back = "<h1>migpool</h1>", '<h1><a href="README.html">migpool: five real downtimes</a></h1>'
        assert title in page
        (directory / f"{name}.html").write_text(page.replace(title, back, 1), "utf-8")
