"""The page that maps QEMU's macros: every macro is there, and what stands beside it does what it says."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest

from migpool.device import DeviceError, Priority
from migpool.vmsd import fields
from migpool.vmsd.description import Description
from migpool.vmsd.fields import u8, u16
from migpool.vmsd.steps import Field

PAGE = Path(__file__).parents[2] / "docs" / "vmsd-macros.md"
MACROS = Path(__file__).parents[1] / "data" / "vmstate-macros.txt"


class Twice:
    """Half of it is what the object has."""

    def __init__(self, parent: SimpleNamespace) -> None:
        self.parent = parent
        self.whole = 0

    def double(self) -> None:
        self.whole = self.parent.half * 2

    def halve(self, _version: int) -> None:
        self.parent.half = self.whole // 2


NAMES: dict[str, object] = {
    **{name: getattr(fields, name) for name in fields.__all__},
    "POINT": Description("point", fields=[u8("x"), u16("y")]),
    "TWICE": Description("twice", fields=[u8("whole")], pre_save=Twice.double, post_load=Twice.halve),
    "Twice": Twice,
    "ns": SimpleNamespace,
}


def rows() -> list[tuple[str, str, str, str]]:
    """Of every row with bytes: the macros, what stands for them, a state, its bytes."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `VMSTATE") and len(cells) == 4 and cells[3]:
            here, values, data = (" ".join(re.findall("`([^`]+)`", cell)[:1]) for cell in cells[1:])
            found.append((cells[0], here, values, data))
    return found


ROWS = rows()


@pytest.mark.parametrize(("here", "values", "data"), [row[1:] for row in ROWS], ids=[row[0][1:40] for row in ROWS])
def test_a_row_builds_and_its_state_has_these_bytes(here: str, values: str, data: str) -> None:
    made = eval(f"[{here}]", dict(NAMES))
    assert all(isinstance(each, Field) for each in made)
    description = Description("d", fields=made)
    state = eval(f"ns({values})", dict(NAMES))
    payload = bytes.fromhex(data)
    assert description.save(state) == payload
    try:
        description.load(loaded := SimpleNamespace(), payload)
    except DeviceError:  # what must be the same at both ends, or tells where to load to, is in the object
        loaded = deepcopy(state)
        description.load(loaded, payload)
    assert loaded == state
    assert description.measure(payload + b"\x7e", state) == len(payload)


def test_every_macro_is_on_the_page_and_no_other() -> None:
    macros = MACROS.read_text().split()
    on_page = re.findall(r"`(VMSTATE_\w+)`", PAGE.read_text())
    assert sorted(set(macros) - set(on_page)) == []
    assert sorted(set(on_page) - set(macros)) == []
    assert macros == sorted(set(macros))


def test_every_kind_of_field_is_on_the_page() -> None:
    used = {name for _, here, values, _ in ROWS for name in re.findall(r"\w+", f"{here} {values}")}
    assert sorted(set(fields.__all__) - used - {"Scalar"}) == []


def test_every_name_outside_the_rows_exists() -> None:
    text = PAGE.read_text()
    for code in re.findall("`([^`]+)`", text):
        assert set(re.findall(r"(?<![.\w])(\w+)\(", code)) <= {*NAMES, "Description"}
    for priority in re.findall(r"Priority\.(\w+)", text):
        assert priority in Priority.__members__
    arguments = set(re.findall(r"`(\w+)=", text)) - {name for row in ROWS for name in re.findall(r"(\w+)=", row[2])}
    known = {"since", "when", "attribute", "new", "fields", "subsections", "version", "minimum_version", "needed"}
    known |= {"priority", "early", "pre_save"}
    assert arguments <= known
    parameters = Description.__init__.__annotations__
    assert known - {"since", "when", "attribute", "new"} <= set(parameters)
