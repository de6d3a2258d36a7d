"""Descriptions compared as they stand in files: recorded streams, their JSON, and ``-dump-vmstate`` output."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.errors import DescriptionError, UsageError
from migpool.streams.compare.sides import read_side
from migpool.vmsd.diff import Compatibility, Verdict, compare, compatibility
from migpool.vmsd.jsonform import stream_description
from migpool.vmsd.layout import LayoutSet, from_json
from tests.support.vmsd_captures import stream_path

LOADS, CANNOT_TELL, BREAKS = Verdict.LOADS, Verdict.CANNOT_TELL, Verdict.BREAKS

# ------------------------------------------------------------------------------------------------------- streams


def recorded(name: str) -> dict[str, object]:
    return dict(stream_description(stream_path(name).read_bytes(), name)[1])


def layouts_in(path: Path) -> LayoutSet:
    return read_side(path).layouts


def test_a_stream_is_compatible_with_itself() -> None:
    layouts = layouts_in(stream_path("q35-rich"))
    assert len(layouts.devices) == 39
    assert compare(layouts, layouts) == []


def test_another_machine_lacks_devices() -> None:
    found = compare(layouts_in(stream_path("q35-rich")), layouts_in(stream_path("q35-min")))
    assert compatibility(found) == Compatibility(BREAKS, LOADS)
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
        (rename_field, LOADS, LOADS, "hpet.config / configuration", "renamed; the bytes are the same"),
        (widen_field, BREAKS, BREAKS, "hpet.config", "forward: 8 bytes are written, 4 are read"),
        (raise_version, CANNOT_TELL, BREAKS, "hpet", "a stream does not say whether 3 reads it"),
        (
            lengthen_array,
            CANNOT_TELL,
            CANNOT_TELL,
            "hpet.timer",
            "forward: 3 elements are written, 8 are read; the count",
        ),
        (
            drop_subsection,
            CANNOT_TELL,
            LOADS,
            "fw_cfg, subsection fw_cfg/dma",
            "the destination did not send this subsection",
        ),
    ],
)
def test_an_edited_stream(
    edit: Callable[[list[dict[str, object]]], None], forward: Verdict, backward: Verdict, path: str, reason: str
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
    assert dump_layouts(flat).devices == dump_layouts(nested).devices
    assert dump_layouts(nested).machine_type == "pc-q35-10.0"
    (layout,) = dump_layouts(nested).devices.values()
    assert (layout.name, layout.version, layout.minimum_version) == ("rtc", 2, 1)
    assert [(each.name, each.total, each.since, each.conditional) for each in layout.fields] == [
        ("index", 1, 0, False),
        ("data", 32, 0, False),
        ("late", 8, 2, False),
        ("odd", 4, 0, True),
        ("inner", 4, 0, False),
    ]


@pytest.mark.parametrize(
    ("changed", "forward", "backward", "path"),
    [
        ({}, LOADS, LOADS, None),
        ({"version_id": 3}, LOADS, BREAKS, "mc146818rtc"),
        ({"version_id": 3, "minimum_version_id": 3}, BREAKS, BREAKS, "mc146818rtc"),
        ({"vmsd_name": "clock"}, BREAKS, BREAKS, "mc146818rtc"),
        ({"Subsections": []}, CANNOT_TELL, LOADS, "mc146818rtc, subsection rtc/irq"),
        ({"Fields": []}, BREAKS, BREAKS, "mc146818rtc.index"),
    ],
)
def test_an_edited_dump(changed: dict[str, object], forward: Verdict, backward: Verdict, path: str | None) -> None:
    found = compare(dump_layouts(dumped()), dump_layouts(dumped(**changed)))
    assert compatibility(found) == Compatibility(forward, backward)
    assert (found[0].path if found else None) == path


def test_the_size_of_a_structure_in_memory_does_not_matter() -> None:
    old, new = dumped(), json.loads(json.dumps(dumped()).replace('"size": 96', '"size": 104'))
    assert compare(dump_layouts(old), dump_layouts(new)) == []


def part(name: str, *fields: tuple[str, int]) -> dict[str, object]:
    """A subsection as newer QEMUs dump it."""
    entries = [{"field": field, "version_id": 0, "field_exists": False, "size": size} for field, size in fields]
    return {"name": f"rtc/{name}", "version_id": 1, "minimum_version_id": 1, "Fields": entries}


def test_subsections_of_a_dump_go_by_their_names_in_any_order() -> None:
    parts = [part("irq", ("irq", 4)), part("tick", ("tick", 8)), part("irq", ("irq", 16))]
    whole, other_order = dumped(Subsections=parts), dumped(Subsections=[parts[1], parts[0], parts[2]])
    assert compare(dump_layouts(whole), dump_layouts(other_order)) == []
    # Of two with one name the first counts.
    assert compare(dump_layouts(whole), dump_layouts(dumped(Subsections=parts[:2]))) == []
    (change,) = compare(dump_layouts(whole), dump_layouts(dumped(Subsections=parts[1:2])))
    assert (change.path, change.forward, change.backward) == (
        "mc146818rtc, subsection rtc/irq",
        CANNOT_TELL,
        LOADS,
    )
    grown = part("irq", ("irq", 4), ("late", 4))
    (change,) = compare(dump_layouts(whole), dump_layouts(dumped(Subsections=[grown, parts[1]])))
    assert (change.path, change.forward, change.backward) == (
        "mc146818rtc, subsection rtc/irq.late",
        BREAKS,
        BREAKS,
    )


def fields(*parts: tuple[str, int, int | None]) -> LayoutSet:
    """The dump of a device with these fields: name, size, count if it is stated."""
    entries = [
        {"field": name, "version_id": 0, "field_exists": False, "size": size, **({"num": count} if count else {})}
        for name, size, count in parts
    ]
    return dump_layouts(dumped(Fields=entries))


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ([("state", 100, None)], [("state", 32, None), ("a", 1, None), ("b", 1, None), ("unused", 66, None)], LOADS),
        ([("a", 4, None), ("b", 4, None)], [("ab", 1, 8)], LOADS),
        ([("a", 4, None)], [("a", 4, 10)], LOADS),
        ([("a", 4, None)], [("a", 8, None)], BREAKS),
        ([("a", 4, 2)], [("a", 4, 3)], BREAKS),
        ([("a", 1, None)], [("unused", 5, None)], CANNOT_TELL),
        ([("a", 0, None)], [("a", 16, None)], LOADS),
    ],
    ids=[
        "a field is split", "fields are joined", "a count is not stated", "another size", "another count",
        "perhaps an array became unused", "opaque at one end",
    ],
)  # fmt: skip
def test_bytes_of_a_dump(
    old: list[tuple[str, int, int | None]], new: list[tuple[str, int, int | None]], verdict: Verdict
) -> None:
    around = ("before", 2, None), ("behind", 2, None)
    ours, theirs = (fields(around[0], *parts, around[1]) for parts in (old, new))
    assert compatibility(compare(ours, theirs)) == Compatibility(verdict, verdict)


def described(*entries: dict[str, object]) -> LayoutSet:
    device = {"name": "d", "instance_id": 0, "vmsd_name": "d", "version": 1, "fields": list(entries)}
    return from_json({"devices": [device]}, "stream")


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ({"type": "virtio", "size": 46143}, {"type": "virtio", "size": 46164}, LOADS),
        ({"type": "uint32", "size": 4}, {"type": "uint64", "size": 8}, BREAKS),
        ({"type": "uint32", "size": 4, "array_len": 3}, {"type": "uint32", "size": 4, "array_len": 8}, CANNOT_TELL),
        ({"type": "buffer", "size": 32}, {"type": "buffer", "size": 64}, CANNOT_TELL),
        ({"type": "uint32", "size": 4}, {"type": "int32", "size": 4}, LOADS),
    ],
    ids=["opaque", "fixed", "counted", "a buffer", "another type of the same size"],
)
def test_sizes_of_fields_of_a_stream(old: dict[str, object], new: dict[str, object], verdict: Verdict) -> None:
    ours, theirs = (described({"name": "x", **field}) for field in (old, new))
    assert compatibility(compare(ours, theirs)) == Compatibility(verdict, verdict)


def test_elements_that_stand_one_by_one_are_the_same_with_an_index_on_the_last_or_not() -> None:
    elements: list[dict[str, object]] = [
        {"name": "port", "index": index, "type": "uint32", "size": 4} for index in range(3)
    ]
    without = [*elements[:2], {key: value for key, value in elements[2].items() if key != "index"}]
    assert compare(described(*elements), described(*without)) == []


def test_a_subsection_that_was_not_needed_is_known_by_the_machine_type_or_by_another_device() -> None:
    stream = recorded("q35-rich")
    devices = stream["devices"]
    assert isinstance(devices, list)
    with_part = copy.deepcopy(stream)
    part = {"vmsd_name": "cpu/xss", "version": 1, "fields": [{"name": "env.xss", "type": "uint64", "size": 8}]}
    parts = device(with_part["devices"], "cpu").setdefault("subsections", [])  # type: ignore[arg-type]
    assert isinstance(parts, list)
    parts.append(part)
    ours, theirs = from_json(with_part, "a"), from_json(stream, "b")
    for machine_type, verdict in [(None, CANNOT_TELL), ("pc-q35-6.2", CANNOT_TELL), ("pc-q35-7.2", LOADS)]:
        found = compatibility(compare(ours, replace(theirs, machine_type=machine_type)))
        assert found == Compatibility(verdict, LOADS)
    other = copy.deepcopy(stream)
    entry = device(other["devices"], "cpu")  # type: ignore[arg-type]
    other["devices"] = [*devices, {**entry, "name": "other", "subsections": [part]}]
    assert compatibility(compare(ours, from_json(other, "b"))).forward is LOADS


def test_a_level_of_a_machine_that_the_source_does_not_send_may_be_too_high() -> None:
    level = {"vmsd_name": "spapr/cap/ibs", "version": 1, "fields": [{"name": "cap", "type": "uint8", "size": 1}]}
    device = {"name": "spapr", "instance_id": 0, "vmsd_name": "spapr", "version": 3, "fields": []}
    usual, other = (from_json({"devices": [{**device, **more}]}, "s") for more in ({}, {"subsections": [level]}))
    assert compatibility(compare(usual, other)) == Compatibility(CANNOT_TELL, CANNOT_TELL)


def test_a_device_an_executable_lacks_matters_if_a_machine_has_it() -> None:
    (change,) = compare(dump_layouts(dumped()), dump_layouts({}))
    assert (change.forward, change.backward) == (CANNOT_TELL, LOADS)


def test_files_of_every_form_are_read(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text(json.dumps(dumped()))
    (tmp_path / "stream.json").write_text(json.dumps(recorded("none")))
    (tmp_path / "stream.mig.gz").write_bytes(gzip.compress(stream_path("none").read_bytes()))
    assert list(layouts_in(tmp_path / "dump.json").devices) == ["mc146818rtc"]
    assert layouts_in(tmp_path / "stream.json").devices == layouts_in(tmp_path / "stream.mig.gz").devices
    assert list(layouts_in(tmp_path / "stream.json").devices) == ["timer", "slirp", "globalstate"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is neither a migration stream nor JSON"),
        ("[]", "is no description .*: expected an object"),
        ('{"devices": [{"name": "d"}]}', "is no description .*: no 'instance_id'"),
        ('{"d": {"Name": "d", "version_id": "2"}}', "is no description .*: expected a number as version_id"),
        ('{"d": {"version_id": 2, "minimum_version_id": 2, "Fields": 1}}', "expected a list of objects as Fields"),
        ("QEVM" + "x" * 40, "is neither a migration stream nor JSON"),
    ],
)
def test_a_file_that_holds_no_descriptions_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DescriptionError, match=message) as caught:
        layouts_in(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.json cannot be read: No such file or directory"):
        layouts_in(tmp_path / "x.json")
