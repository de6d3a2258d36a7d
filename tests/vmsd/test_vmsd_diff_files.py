"""Descriptions compared as they stand in files: recorded streams, their JSON, and ``-dump-vmstate`` output."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from migpool.errors import DescriptionError
from migpool.vmsd.diff import Compatibility, Risk, compare, compatibility
from migpool.vmsd.jsonform import stream_description
from migpool.vmsd.layout import LayoutSet, from_json, read_layouts
from tests.support.vmsd_captures import stream_path

SAFE, DEPENDS, BREAKS = Risk.SAFE, Risk.DEPENDS, Risk.BREAKS

# ------------------------------------------------------------------------------------------------------- streams


def recorded(name: str) -> dict[str, object]:
    return dict(stream_description(stream_path(name).read_bytes(), name)[1])


def test_a_stream_is_compatible_with_itself() -> None:
    layouts = read_layouts(stream_path("q35-rich"))
    assert len(layouts.devices) == 39
    assert compare(layouts, layouts) == []


def test_another_machine_lacks_devices() -> None:
    found = compare(read_layouts(stream_path("q35-rich")), read_layouts(stream_path("q35-min")))
    assert compatibility(found) == Compatibility(BREAKS, SAFE)
    by_path = {each.path: each for each in found}
    assert by_path["0000:00:01.0/e1000e"].forward is BREAKS
    assert by_path["cpu (1)"].reason == "the destination has no such device"


def rename_field(devices: list[dict[str, object]]) -> None:
    fields_of(devices, "hpet")[0]["name"] = "configuration"


def widen_field(devices: list[dict[str, object]]) -> None:
    fields_of(devices, "hpet")[0]["size"] = 4


def raise_version(devices: list[dict[str, object]]) -> None:
    device(devices, "hpet")["version"] = 3


def lengthen_array(devices: list[dict[str, object]]) -> None:
    fields_of(devices, "hpet")[4]["array_len"] = 8


def drop_subsection(devices: list[dict[str, object]]) -> None:
    del device(devices, "fw_cfg")["subsections"]


def device(devices: list[dict[str, object]], name: str) -> dict[str, object]:
    return next(each for each in devices if each["name"] == name)


def fields_of(devices: list[dict[str, object]], name: str) -> list[dict[str, object]]:
    found = device(devices, name)["fields"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("edit", "forward", "backward", "path", "reason"),
    [
        (rename_field, SAFE, SAFE, "hpet.config / configuration", "renamed; the bytes are the same"),
        (widen_field, BREAKS, BREAKS, "hpet.config", "forward: 8 bytes are written, 4 are read"),
        (raise_version, DEPENDS, BREAKS, "hpet", "a stream does not say whether 3 reads it"),
        (lengthen_array, BREAKS, BREAKS, "hpet.timer", "forward: 3 elements are written, 8 are read"),
        (drop_subsection, DEPENDS, SAFE, "fw_cfg, subsection fw_cfg/dma", "the destination does not know this subsect"),
    ],
)
def test_an_edited_stream(
    edit: Callable[[list[dict[str, object]]], None], forward: Risk, backward: Risk, path: str, reason: str
) -> None:
    old = recorded("q35-rich")
    new = copy.deepcopy(old)
    devices = new["devices"]
    assert isinstance(devices, list)
    edit(devices)
    found = compare(from_json(old, "old"), from_json(new, "new"))
    assert compatibility(found) == Compatibility(forward, backward)
    assert found[0].path == path
    assert reason in found[0].reason


# ------------------------------------------------------------------------------------------- -dump-vmstate files


def dumped(**changed: object) -> dict[str, object]:
    """A file as ``-dump-vmstate`` writes it, with one device."""
    described: dict[str, object] = {
        "vmsd_name": "rtc",
        "version_id": 2,
        "minimum_version_id": 1,
        "Fields": [
            {"field": "index", "version_id": 0, "field_exists": False, "size": 1},
            {"field": "data", "version_id": 0, "field_exists": False, "num": 16, "size": 2},
            {"field": "late", "version_id": 2, "field_exists": False, "size": 8},
            {"field": "odd", "version_id": 0, "field_exists": True, "size": 4},
            {
                "field": "inner",
                "version_id": 0,
                "field_exists": False,
                "size": 96,
                "Description": {
                    "vmsd_name": "inner",
                    "version_id": 1,
                    "minimum_version_id": 1,
                    "Fields": [{"field": "x", "version_id": 0, "field_exists": False, "size": 4}],
                },
            },
        ],
        "Subsections": [{"vmsd_name": "rtc/irq", "version_id": 1, "minimum_version_id": 1}],
        **changed,
    }
    head = {"Name": "rtc", "version_id": described["version_id"], "minimum_version_id": 1}
    return {"vmschkmachine": {"Name": "pc-q35-10.0"}, "mc146818rtc": {**head, "Description": described}}


def dump_layouts(document: Mapping[str, object]) -> LayoutSet:
    return from_json(document, "dump.json")


def test_a_dump_is_read_with_or_without_a_description_level() -> None:
    nested = dumped()
    entry = nested["mc146818rtc"]
    assert isinstance(entry, dict)
    description = entry["Description"]
    flat = {"mc146818rtc": {"Name": "rtc", **{key: description[key] for key in description if key != "vmsd_name"}}}
    assert dump_layouts(flat) == dump_layouts(nested)
    (layout,) = dump_layouts(nested).devices.values()
    assert (layout.name, layout.version, layout.minimum_version) == ("rtc", 2, 1)
    assert [(each.name, each.total, each.since, each.conditional) for each in layout.fields] == [
        ("index", 1, 0, False),
        ("data", 32, 0, False),
        ("late", 8, 2, False),
        ("odd", 4, 0, True),
        ("inner", None, 0, False),
    ]


@pytest.mark.parametrize(
    ("changed", "forward", "backward", "path"),
    [
        ({}, SAFE, SAFE, None),
        ({"version_id": 3}, SAFE, BREAKS, "mc146818rtc"),
        ({"version_id": 3, "minimum_version_id": 3}, BREAKS, BREAKS, "mc146818rtc"),
        ({"vmsd_name": "clock"}, BREAKS, BREAKS, "mc146818rtc"),
        ({"Subsections": []}, DEPENDS, SAFE, "mc146818rtc, subsection rtc/irq"),
        ({"Fields": []}, BREAKS, BREAKS, "mc146818rtc.index"),
    ],
)
def test_an_edited_dump(changed: dict[str, object], forward: Risk, backward: Risk, path: str | None) -> None:
    found = compare(dump_layouts(dumped()), dump_layouts(dumped(**changed)))
    assert compatibility(found) == Compatibility(forward, backward)
    assert (found[0].path if found else None) == path


def test_the_size_of_a_structure_in_memory_does_not_matter() -> None:
    old, new = dumped(), json.loads(json.dumps(dumped()).replace('"size": 96', '"size": 104'))
    assert compare(dump_layouts(old), dump_layouts(new)) == []


def test_a_device_an_executable_lacks_matters_if_a_machine_has_it() -> None:
    (change,) = compare(dump_layouts(dumped()), dump_layouts({}))
    assert (change.forward, change.backward) == (DEPENDS, SAFE)


def test_files_of_every_form_are_read(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text(json.dumps(dumped()))
    (tmp_path / "stream.json").write_text(json.dumps(recorded("none")))
    (tmp_path / "stream.mig.gz").write_bytes(gzip.compress(stream_path("none").read_bytes()))
    assert list(read_layouts(tmp_path / "dump.json").devices) == ["mc146818rtc"]
    assert read_layouts(tmp_path / "stream.json") == read_layouts(tmp_path / "stream.mig.gz")
    assert list(read_layouts(tmp_path / "stream.json").devices) == ["timer", "slirp", "globalstate"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("[", "is neither a migration stream nor JSON"),
        ("[]", "is no description .*: expected an object"),
        ('{"devices": [{"name": "d"}]}', "is no description .*: no 'instance_id'"),
        ('{"d": {"Name": "d", "version_id": "2"}}', "is no description .*: expected a number as version_id"),
        ('{"d": {"version_id": 2, "minimum_version_id": 2, "Fields": 1}}', "expected a list of objects as Fields"),
        ("QEVM" + "x" * 40, "no description at its end"),
    ],
)
def test_a_file_that_holds_no_descriptions_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DescriptionError, match=message) as caught:
        read_layouts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
