"""A device's row has one shape from a side's report to the file, the terminal and the page."""

from __future__ import annotations

from pathlib import Path

from migpool.lab.report import table
from migpool.migration import report
from tests.support.changed_copy import found_with

# A field of the report and a column are two files; the third is who fills the field, here the program.
FIELD = (report, "    config: int = 0\n", "    config: int = 0\n    faults: int = 0\n")
COLUMN = (
    table,
    '    "Verified": _verified,\n',
    '    "Faults": lambda told, _: (str(told.faults), "number"),\n    "Verified": _verified,\n',
)
PROGRAM = """
import io, json
from dataclasses import replace
from tests.support.lab_reports import lab_result_of, pair, result
from rich.console import Console
from migpool.lab.analysis.why import analyse
from migpool.lab.report.table import device_table
from migpool.lab.result_of_sides import run_result
from migpool.lab.report.page.contents import contents
from migpool.lab.run.side import SideResult

source, destination = result("source"), result("destination")
devices = tuple(replace(one, faults=7 + at) for at, one in enumerate(source.report.devices))
source = replace(source, report=replace(source.report, devices=devices))
crossed = SideResult.from_json(json.loads(json.dumps(source.to_json())))
run = run_result("pool", 1, 1, pair(crossed, destination))
run = run.model_copy(update={"analysis": analyse(source.report, destination.report, 1 << 20)})
stream = io.StringIO()
Console(file=stream, width=120).print(device_table(run, 120))
whole = lab_result_of(run)
print(json.dumps({
    "file": [row["faults"] for row in json.loads(whole.to_json())["runs"][0]["devices"]],
    "terminal": stream.getvalue().splitlines(),
    "page": contents([whole])["parts"][0]["models"][0]["run"]["devices"],
}))
"""


def test_a_new_field_is_a_line_in_the_report_and_a_column(tmp_path: Path) -> None:
    found = found_with(tmp_path, [FIELD, COLUMN], PROGRAM)
    assert found["file"] == [7, 8]
    assert "Faults" in found["terminal"][0]
    assert any(" 7 " in line for line in found["terminal"] if line.startswith("gpu"))
    at = found["page"]["head"].index("Faults")
    assert [row[at] for row in found["page"]["rows"] if row[0][0] == "gpu"] == [["7", "number"]]
