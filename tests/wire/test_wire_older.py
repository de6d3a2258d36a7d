"""Streams that leave out what machine types before 2.4 left out: the configuration, and the sections' footers."""

from __future__ import annotations

import pytest

from migpool.errors import ProtocolError
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.devicestate import DeviceStateHeader, DeviceStateParser
from migpool.wire.ram import RamBlock, RamPages, block_list, pages
from migpool.wire.sections import Section
from migpool.wire.stream import Eof, FileHeader, StreamEvent, StreamReader, emit, eof, header
from tests.support.made_streams import LengthPrefixed
from tests.support.wire_bytes import section_full, section_start

RAM = b"".join(section_start(2, "ram", [block_list([RamBlock("a", 8192)]), bytes(7) + b"\x10"], version=4))
FULL = b"".join(section_full(1, "d", b"\x02ab"))
FOOTER = 5


def bare(section: bytes) -> bytes:
    return section[:-FOOTER]


def read(data: bytes, *, older: bool = True, page_size: int = 4096) -> tuple[StreamReader, list[StreamEvent]]:
    reader = StreamReader(LengthPrefixed(), older=older, page_size=page_size)
    reader.feed(data)
    events = list(reader.events())
    reader.end()
    return reader, [*events, *reader.events()]


@pytest.mark.parametrize("config", [b"", configuration(Configuration("q"))])
@pytest.mark.parametrize("footers", [True, False])
def test_what_is_left_out_is_noticed_and_the_events_are_the_same_bytes(config: bytes, footers: bool) -> None:
    sections = [RAM, FULL] if footers else [bare(RAM), bare(FULL)]
    stream = header() + config + b"".join(sections) + eof()
    reader, events = read(stream)
    assert reader.footers is footers
    assert sum(isinstance(event, Configuration) for event in events) == bool(config)
    assert [type(event) for event in events if isinstance(event, FileHeader | Section | Eof)] == [
        FileHeader,
        Section,
        Eof,
    ]
    assert b"".join(part for event in events for part in emit(event, footers=footers)) == stream


@pytest.mark.parametrize("footers", [True, False])
def test_single_bytes_give_the_same_events(footers: bool) -> None:
    stream = header() + (RAM + FULL if footers else bare(RAM) + bare(FULL)) + eof()
    reader = StreamReader(LengthPrefixed(), older=True)
    events: list[StreamEvent] = []
    for byte in stream:
        reader.feed(bytes((byte,)))
        events += reader.events()
    reader.end()
    assert events == read(stream)[1]


def test_nothing_is_known_of_footers_before_the_first_section() -> None:
    reader, _ = read(header() + configuration(Configuration("q")) + eof())
    assert reader.footers is None
    assert reader.section is None


def test_once_there_was_a_footer_every_section_has_one() -> None:
    with pytest.raises(ProtocolError, match=r"footer of FULL section 1 of 'd' \(0\) at byte"):
        read(header() + RAM + bare(FULL) + eof() + bytes(8))


def test_a_first_section_of_the_wrong_length_is_not_taken_for_one_without_a_footer() -> None:
    with pytest.raises(ProtocolError, match=r"footer of .*: 7e00000001, found 6200000000"):
        read(header() + bare(b"".join(section_full(1, "d", b"\x01ab"))) + bytes(8))


def test_without_the_option_both_are_wanted() -> None:
    with pytest.raises(ProtocolError, match="type of the next item at byte 8: 07, found 04"):
        read(header() + FULL + eof(), older=False)
    with pytest.raises(ProtocolError, match="footer of FULL section 1"):
        read(header() + configuration(Configuration("q")) + bare(FULL) + eof() + bytes(8), older=False)


def test_the_size_of_a_page_is_the_configurations_or_else_the_given_one() -> None:
    ram = [block_list([RamBlock("a", 8192)]), *pages("a", [(0, bytes(8192))]), bytes(7) + b"\x10"]
    section = b"".join(section_start(2, "ram", ram, version=4))
    for config in (b"", configuration(Configuration("q"))):
        _, events = read(header() + config + section + eof(), page_size=8192)
        (found,) = [event for event in events if isinstance(event, RamPages)]
        assert found.page_size == 8192
    _, events = read(header() + configuration(Configuration("q", 13)) + section + eof())
    assert any(isinstance(event, RamPages) and event.page_size == 8192 for event in events)


def test_pages_at_fixed_places_of_a_file_are_refused_by_name() -> None:
    with pytest.raises(ProtocolError, match="a stream of pages, found the capability mapped-ram"):
        read(header() + configuration(Configuration("q", None, ("mapped-ram",))) + RAM + eof())


def test_a_name_with_line_breaks_does_not_break_the_line_of_an_error() -> None:
    ram = [block_list([RamBlock("a\nb", 8192)]), *pages("c\nd", [(0, None)])]
    with pytest.raises(ProtocolError, match=r"a block of the list \('a\\nb'\), found 'c\\nd'") as caught:
        read(header() + configuration(Configuration("q")) + b"".join(section_start(2, "ram", ram, version=4)))
    assert "\n" not in str(caught.value)
    header_bytes = DeviceStateHeader("vfio\n", 0)
    header_bytes.pack(0, 1)
    with pytest.raises(ProtocolError, match=r"found 'vfio\\n' \(0\)") as caught:
        DeviceStateParser({("d", 0): None}, limit=100).parse(bytes(header_bytes.buffer))
    assert "\n" not in str(caught.value)
