"""Streams of other machines and devices: walked to the last byte and decoded exactly, or refused with the reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from migpool.streams.inspect.boundaries import Boundaries
from migpool.streams.inspect.decoding import decode
from migpool.streams.inspect.reading import inspect_bytes
from migpool.streams.inspect.summary import Framing, StreamSummary
from migpool.wire.stream import StreamReader, emit
from migpool.wire.vmdesc import find
from migpool_plugins.vmsd.capture import sections
from tests.support import LONG
from tests.support.inspections import inspect_file, inspect_pipe
from tests.support.other_streams import BARE, DESCRIBED, MAPPED, MISDESCRIBED, OTHERS, UNDESCRIBED, other, other_path

Inspected = Callable[[str], StreamSummary]


@pytest.fixture(scope="module")
def inspected() -> Inspected:
    """What is seen in a stream, with what each section carries; several tests look at it."""
    return cache(lambda name: inspect_bytes(other(name), everything))


def everything(idstr: str, instance_id: int) -> bool:
    del idstr, instance_id
    return True


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_stream_with_a_description_is_walked_to_the_last_byte_and_decoded_exactly(
    name: str, inspected: Inspected
) -> None:
    summary = inspected(name)
    assert summary.problem is None
    assert summary.walked == summary.size == len(other(name))
    assert summary.description is not None
    decoded = [each for each in decode(summary) if each.section.kind == "FULL"]
    assert len(decoded) == summary.description.devices
    assert [(each.section.idstr, each.fault) for each in decoded if not each.exact] == []


LARGE = "i440fx-dirty-bitmaps"
"""34,297 sections that are alike: what else there is of each kind, others have."""


@pytest.mark.parametrize("name", [name for name in DESCRIBED if name != MAPPED and (LONG or name != LARGE)])
def test_every_event_is_the_bytes_it_was_read_from(name: str) -> None:
    stream = other(name)
    boundaries = Boundaries(find(stream)[1])
    reader = StreamReader(boundaries, older=True)
    boundaries.reader = reader
    reader.feed(stream)
    events = list(reader.events())
    assert reader.footers is not None
    assert b"".join(part for event in events for part in emit(event, footers=reader.footers)) == stream


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_devices_of_a_stream_are_found_from_its_end_too(name: str, inspected: Inspected) -> None:
    kept = inspected(name).kept
    assert [(found.name, found.instance_id, found.payload) for found in sections(other(name), name)] == [
        (each.summary.idstr, each.summary.instance_id, each.payload) for each in kept
    ]


@pytest.mark.parametrize("name", UNDESCRIBED)
def test_without_a_description_the_ends_of_sections_are_found_by_their_footers_and_called_a_guess(name: str) -> None:
    summary = inspect_bytes(other(name))
    assert summary.problem is None
    assert summary.description is None
    full = [section for section in summary.sections if section.kind == "FULL"]
    assert {section.framing for section in full} == {Framing.GUESSED}
    assert any("ended is a guess" in note for note in summary.notes)


def test_the_guesses_are_what_the_description_of_the_same_machine_says() -> None:
    guessed = {section.idstr: section.size for section in inspect_bytes(other("microvm-no-description")).sections}
    described = {section.idstr: section.size for section in inspect_bytes(other("microvm-validate-uuid")).sections}
    assert guessed == described


@pytest.mark.parametrize("name", BARE)
def test_without_description_and_footers_the_first_device_is_where_it_ends_and_why_is_said(name: str) -> None:
    summary = inspect_bytes(other(name))
    assert summary.problem is not None
    assert summary.problem.item == "payload of FULL section 0 of 'timer' (0)"
    assert "no description (VMDESC) of it, and sections have no footers" in summary.problem.expected
    assert [section.kind for section in summary.sections if section.idstr == "ram"][-1] == "END"
    assert summary.configuration is None
    assert summary.footers is False
    assert summary.walked == summary.problem.offset


def test_pages_at_fixed_places_of_the_file_are_counted_from_the_bitmaps(inspected: Inspected) -> None:
    summary = inspected(MAPPED)
    assert summary.configuration is not None
    assert summary.configuration.capabilities == ("mapped-ram",)
    assert {block.name: block.pages for block in summary.blocks} == {
        "microvm.ram": 0, "/rom@etc/acpi/tables": 1, "pc.bios": 1, "/rom@etc/table-loader": 1, "/rom@etc/acpi/rsdp": 1
    }  # fmt: skip


@pytest.mark.parametrize("name", OTHERS if LONG else OTHERS[::3])
def test_a_file_a_compressed_file_and_a_pipe_show_the_same(name: str, inspected: Inspected) -> None:
    mapped, compressed = replace(inspected(name), kept=[]), inspect_file(other_path(name))
    assert compressed.envelope == ["compressed with gzip"]
    assert replace(compressed, envelope=[]) == inspect_pipe(io.BytesIO(other(name))) == mapped


def test_what_the_configuration_says_is_shown() -> None:
    uuid = inspect_bytes(other("microvm-validate-uuid")).configuration
    assert uuid is not None
    assert uuid.uuid == bytes.fromhex("11111111222233334444555555555555")
    shared = inspect_bytes(other("microvm-ignore-shared"))
    assert shared.configuration is not None
    assert shared.configuration.capabilities == ("x-ignore-shared",)
    assert all(block.gpa is not None for block in shared.blocks)


def test_a_device_that_is_saved_early_stands_between_sections_of_ram() -> None:
    order = [(section.kind, section.idstr) for section in inspect_bytes(other("q35-virtio-mem")).sections]
    early = order.index(("FULL", "0000:00:01.0/virtio-mem-device-early"))
    assert order[early - 1] == ("START", "ram")
    assert order[early + 1] == ("PART", "ram")


def test_dirty_bitmaps_are_measured_and_equal_sections_are_one_entry(inspected: Inspected) -> None:
    found = {section.kind: section for section in inspected("i440fx-dirty-bitmaps").sections
             if section.idstr == "dirty-bitmap"}  # fmt: skip
    assert (found["START"].size, found["PART"].count, found["END"].size) == (14, 34297, 15)


def test_real_sections_of_s390_and_power_are_walked_by_their_own_forms(inspected: Inspected) -> None:
    attributes, table = "s390-storage_attributes", "spapr/htab"
    found = {
        (section.kind, section.idstr): (section.size, section.count, section.framing)
        for name in ("s390", "power8-hash-table")
        for section in inspected(name).sections
        if section.idstr in (attributes, table)
    }
    assert found == {
        ("START", attributes): (8, 1, Framing.SELF),
        ("PART", attributes): (8, 1, Framing.SELF),
        ("END", attributes): (16, 1, Framing.SELF),
        ("START", table): (4, 1, Framing.SELF),
        ("PART", table): (1584, 4, Framing.SELF),
        ("END", table): (12, 1, Framing.SELF),
    }


def test_null_pointers_in_an_array_are_called_so(inspected: Inspected) -> None:
    [css] = [each for each in decode(inspected("s390")) if each.section.idstr == "s390_css"]
    assert css.fields is not None
    images = css.fields["css"]
    assert isinstance(images, list)
    assert ({type(each) for each in images}, images.count("nullptr")) == ({str, dict}, 255)


def test_an_array_that_an_old_qemu_describes_wrongly_costs_no_other_device() -> None:
    summary = inspect_bytes(other(MISDESCRIBED), everything)
    assert summary.problem is None
    assert [each.section.idstr for each in decode(summary) if each.section.kind == "FULL" and not each.exact] == [
        "s390_css"
    ]
    assert any("'s390_css' (0) is described with 272 bytes and has 1039" in note for note in summary.notes)
