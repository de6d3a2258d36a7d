"""Every message is one line in an author's words, whatever stands in the object or in the bytes."""

from __future__ import annotations

import inspect
import pkgutil
import re
from importlib import import_module
from types import SimpleNamespace

import pytest

import migpool.vmsd
from migpool.device import DeviceError
from migpool.vmsd import fields
from migpool.vmsd.description import Description
from migpool.vmsd.fields import equal, u8, u16
from migpool.vmsd.steps import Field

POINT = Description("point", fields=[u8("x"), u16("y")], subsections=[Description("point/z", fields=[u8("z")])])
KINDS: list[Field] = [
    *(getattr(fields, kind)("v") for kind in ("boolean", "i8", "u16", "i32", "u64", "timer", "double", "descriptor")),
    *(fields.u16("v", length=2), fields.u16("v", length=1, start=1), fields.u8("v", length="n")),
    *(fields.buffer("v", 2), fields.buffer("v", "n"), fields.buffer("v", 1, start=1), fields.byte_array("v")),
    *(fields.bitmap("v", 9), fields.bitmap("v", "n"), equal(u8, "v"), fields.not_above("v")),
    *(fields.struct("v", POINT), fields.struct("v", POINT, length=2), fields.vstruct("v", POINT, version=0)),
    *(fields.pointers("v", POINT, length=2), fields.pointers("v", u8, length="n")),
    *(fields.pointers("v", fields.timer, length=2), fields.pointers("v", POINT, length=2, allocate=True)),
    *(
        fields.queue("v", POINT),
        fields.linked_list("v", POINT),
        fields.tree("v", POINT),
        fields.tree("v", POINT, key=POINT),
    ),
    *(fields.unused(2), fields.unused(2, length="n"), fields.validate("v", lambda it, _: it.n == it.v)),
    *(fields.u8("v.w"), fields.u8("v", when=lambda it, _: it.n < it.v)),
]


class Table:
    """Shows itself in several lines, as arrays and tables do."""

    def __repr__(self) -> str:
        return "1 2\n3 4"


VALUES = [
    Table(),
    None,
    5,
    -1,
    "text",
    b"ab",
    1.5,
    [],
    [None, 1],
    {1: 2},
    object(),
    SimpleNamespace(x=1),
    [SimpleNamespace(x=-1)] * 2,
]
DATA = [b"", b"\x00", b"\x02\x02\x02", b"\x01\x30\x31\x00", b"\x05\x07point/z\x00\x00\x00\x00\x01", b"\xff" * 20]
INNER = {
    name
    for module in pkgutil.iter_modules(migpool.vmsd.__path__, "migpool.vmsd.")
    for name, kind in inspect.getmembers(import_module(module.name), inspect.isclass)
    if kind.__module__.startswith("migpool.vmsd")
}


def told(error: DeviceError) -> None:
    text = str(error)
    assert text.startswith(("d: ", "d at byte "))
    assert "\n" not in text
    assert "migpool" not in text
    assert not INNER.intersection(re.findall(r"\w+", text)), text


@pytest.mark.parametrize("field", KINDS, ids=[str(at) for at in range(len(KINDS))])
def test_no_message_names_what_is_inside(field: Field) -> None:
    assert {"Description", "Fault", "Reader", "PointerArray"} <= INNER
    description = Description("d", fields=[u8("before"), field])
    refused = 0
    for value in VALUES:
        for count in (1, None):
            for attempt in (description.save, description.describe, description.show):
                try:
                    attempt(SimpleNamespace(before=1, v=value, n=count))
                except DeviceError as error:
                    refused += 1
                    told(error)
            for data in DATA:
                for load in (description.load, lambda state, data: description.measure(data, state)):
                    try:
                        load(SimpleNamespace(v=value, n=count), data)
                    except DeviceError as error:
                        refused += 1
                        told(error)
    assert refused
