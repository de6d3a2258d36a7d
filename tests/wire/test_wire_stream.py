"""The main channel: recorded streams, drawn streams, and streams that are wrong."""

from __future__ import annotations

from mmap import PROT_READ, mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import ProtocolError, UsageError
from migpool.wire.commands import (
    Command,
    CommandKind,
    Packaged,
    command,
    failed,
    failed_reason,
    open_return_path,
    packaged,
    ping,
    ping_value,
    switchover_start,
)
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.records import Mark, data_record, end_payload, setup_payload
from migpool.wire.sections import Section, footer, section_end, section_part
from migpool.wire.stream import (
    DeviceSection,
    Eof,
    FileHeader,
    StreamEvent,
    StreamReader,
    VmDescription,
    eof,
    header,
    vm_description,
)
from tests.support.described_lengths import CAPTURES, NAMES, DescribedLengths, capture
from tests.support.made_streams import BATCH, LengthPrefixed, in_pieces, raw, read_in_pieces, streams
from tests.support.wire_bytes import RECORDS_ONLY, section_full, section_start

PROLOGUE = header() + configuration(Configuration("none"))


def read(data: bytes) -> list[StreamEvent]:
    return read_in_pieces(StreamReader(LengthPrefixed(), batch=BATCH), [data])


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_stream_is_walked_to_its_last_byte_and_written_again_byte_for_byte(name: str) -> None:
    stream = capture(name)
    reader = StreamReader(DescribedLengths.of(stream))
    events = read_in_pieces(reader, [stream])
    assert reader.offset == len(stream)
    assert raw(events) == stream
    assert isinstance(events[-1], VmDescription)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.parametrize("step", [7, 4096])
def test_a_recorded_stream_gives_the_same_events_in_pieces(name: str, claims: bool, step: int) -> None:
    stream = capture(name)
    whole = read_in_pieces(StreamReader(DescribedLengths.of(stream)), [stream])
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    assert read_in_pieces(StreamReader(DescribedLengths.of(stream, claims=claims)), pieces) == whole


def test_a_mapped_recording_can_be_closed_when_it_has_been_walked() -> None:
    schema = DescribedLengths.of(capture("q35-min"))
    with (CAPTURES / "q35-min.mig").open("rb") as file, mmap(file.fileno(), 0, prot=PROT_READ) as mapped:
        reader = StreamReader(schema)
        reader.feed(memoryview(mapped))
        walked = sum(1 for _ in reader.events())
        reader.end()
    assert walked > 50


def test_the_events_of_the_smallest_recording_stand_where_its_bytes_do() -> None:
    stream = capture("none")
    events = read_in_pieces(StreamReader(DescribedLengths.of(stream)), [stream])
    assert events[0] == FileHeader(3, 0)
    assert events[1] == Configuration("none", offset=8)
    sections = {e.head.idstr: (e.offset, e.head.section_id, len(e.payload)) for e in events if isinstance(e, Section)}
    assert sections == {"timer": (78, 0, 24), "slirp": (126, 1, 131), "globalstate": (281, 4, 104)}
    assert Command(CommandKind.SWITCHOVER_START, b"", 55) in events
    assert events[-2] == Eof(415)


@given(streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_a_stream_gives_back_what_was_written_whatever_the_pieces(events: list[StreamEvent], cuts: list[int]) -> None:
    data = raw(events)
    whole = read(data)
    assert raw(whole) == data
    assert read_in_pieces(StreamReader(LengthPrefixed(), batch=BATCH), in_pieces(data, cuts)) == whole


@given(streams())
def test_single_bytes_give_the_same_events_and_offsets_that_lead_back_to_them(events: list[StreamEvent]) -> None:
    data = raw(events)
    singles = read_in_pieces(StreamReader(LengthPrefixed(), batch=BATCH), [bytes((byte,)) for byte in data])
    assert singles == read(data)
    assert [event.offset for event in singles] == sorted(event.offset for event in singles)
    assert all(data[event.offset :].startswith(raw([event])) for event in singles)


def test_input_that_can_change_is_copied_and_input_that_cannot_is_not() -> None:
    data = PROLOGUE + b"".join(section_full(1, "d", b"\x04abcd")) + eof()
    buffer = bytearray(data)
    reader = StreamReader(LengthPrefixed())
    reader.feed(buffer)
    buffer[:] = bytes(len(buffer))
    section = next(event for event in reader.events() if isinstance(event, Section))
    assert section.payload == b"\x04abcd"

    reader = StreamReader(LengthPrefixed())
    reader.feed(data)
    section = next(event for event in reader.events() if isinstance(event, Section))
    assert isinstance(section.payload, memoryview)
    assert section.payload.obj is data


def test_a_section_is_an_event_as_soon_as_its_footer_is_there_on_a_connection_that_stays_open() -> None:
    payload = b"\xc8" + bytes(200)
    reader = StreamReader(LengthPrefixed())
    reader.feed(PROLOGUE + b"".join(section_full(1, "d", payload))[:-103])
    assert [type(event) for event in reader.events()] == [FileHeader, Configuration]
    reader.feed(bytes(98))
    assert list(reader.events()) == []
    reader.feed(footer(1))
    assert [type(event) for event in reader.events()] == [Section]


def test_records_of_an_iterable_device_are_read_as_they_were_written() -> None:
    stream = b"".join(
        [
            PROLOGUE,
            *section_start(3, "0000:01:00.0/vfio", setup_payload(b"set-up"), instance_id=0, version=1),
            *section_part(3, [*data_record(b"some state"), end_payload()]),
            *section_end(3, end_payload()),
            eof(),
        ]
    )
    setup, data = bytes.fromhex("ffffffffef100003"), bytes.fromhex("ffffffffef100004")
    end = bytes.fromhex("ffffffffef100001")
    at = len(PROLOGUE)
    assert stream[at:-1] == (
        bytes.fromhex("01 00000003 11") + b"0000:01:00.0/vfio" + bytes.fromhex("00000000 00000001")
        + setup + data + bytes.fromhex("0000000000000006") + b"set-up" + end + bytes.fromhex("7e 00000003")
        + bytes.fromhex("02 00000003") + data + bytes.fromhex("000000000000000a") + b"some state" + end
        + bytes.fromhex("7e 00000003 03 00000003") + end + bytes.fromhex("7e 00000003")
    )  # fmt: skip
    sections = [e for e in read_in_pieces(StreamReader(RECORDS_ONLY), [stream]) if isinstance(e, DeviceSection)]
    assert [[record.mark for record in section.records] for section in sections] == [
        [Mark.SETUP, Mark.DATA, Mark.END],
        [Mark.DATA, Mark.END],
        [Mark.END],
    ]


def test_commands_have_the_bytes_of_the_format() -> None:
    assert open_return_path() == bytes.fromhex("08 0001 0000")
    assert ping(1) == bytes.fromhex("08 0002 0004 00000001")
    assert switchover_start() == bytes.fromhex("08 000b 0000")
    assert b"".join(packaged(b"abc")) == bytes.fromhex("08 0007 0004 00000003") + b"abc"
    with pytest.raises(ValueError, match="PING cannot have 3 bytes"):
        command(Command(CommandKind.PING, b"abc"))
    [event] = [event for event in read(PROLOGUE + ping(77) + eof()) if isinstance(event, Command)]
    assert ping_value(event) == 77


def test_a_source_says_in_one_line_why_it_gives_up() -> None:
    assert failed("no\nroom") == bytes.fromhex("08 4d53 0007") + b"no room"
    assert len(failed("x" * 500)) == 5 + 480
    [event] = [event for event in read(PROLOGUE + failed("no \N{EURO SIGN}") + eof()) if isinstance(event, Command)]
    assert failed_reason(event) == "no \N{EURO SIGN}"
    for data, wrong in ((b"a\xff", "UTF-8 text"), (b" \x1b", "text that can be read")):
        with pytest.raises(ProtocolError, match=f"^command FAILED at byte .*: {wrong}"):
            failed_reason(Command(CommandKind.FAILED, data, 7))
    with pytest.raises(ValueError, match="FAILED cannot have 481 bytes"):
        command(Command(CommandKind.FAILED, b"x" * 481))


def test_a_configuration_has_the_bytes_of_the_format() -> None:
    config = Configuration("pc", 12, ("a", "bc"), bytes(range(16)))
    assert configuration(config) == (
        bytes.fromhex("07 00000002") + b"pc"
        + b"\x05\x1e" + b"configuration/target-page-bits" + bytes.fromhex("00000001 0000000c")
        + b"\x05\x1a" + b"configuration/capabilities" + bytes.fromhex("00000001 00000002 01") + b"a\x02bc"
        + b"\x05\x12" + b"configuration/uuid" + bytes.fromhex("00000001") + bytes(range(16))
    )  # fmt: skip


def test_a_package_holds_sections_and_commands_of_its_own() -> None:
    inner = b"".join([command(Command(CommandKind.POSTCOPY_LISTEN)), *section_full(4, "d", b"\x02xy")])
    reader = StreamReader(LengthPrefixed())
    reader.feed(PROLOGUE + b"".join(packaged(inner)) + eof())
    package = next(event for event in reader.events() if isinstance(event, Packaged))
    listen, section = reader.inside(package)
    at = len(PROLOGUE) + 9
    assert listen == Command(CommandKind.POSTCOPY_LISTEN, b"", at)
    assert isinstance(section, Section)
    assert (section.offset, section.payload) == (at + 5, b"\x02xy")
    with pytest.raises(ProtocolError, match=rf"FULL section at byte {at}: "):
        list(reader.inside(Packaged(inner[5:8], package.offset)))


SMALL = [
    *(header(), configuration(Configuration("q", 12, ("x-a",), bytes(16)))),
    *(open_return_path(), ping(1)),
    *section_start(2, "ram", bytes.fromhex("0000000000001004 01 61 0000000000001000 0000000000000010"), version=4),
    *section_part(2, bytes.fromhex("0000000000000002 01 61 00 0000000000000022 00 0000000000000010")),
    *section_start(3, "0000:01:00.0/vfio", setup_payload(b"s")),
    *section_full(1, "d", b"\x03abc"),
    *packaged(b"\x08\0\x0b\0\0"),
    eof(),
    *vm_description(b"{}"),
]


def test_a_small_stream_damaged_at_any_byte_is_read_or_is_a_protocol_error() -> None:
    data = b"".join(SMALL)
    before = read(data)
    refused = 0
    for at in range(len(data)):
        for value in {0, 0xFF, data[at] ^ 1, data[at] ^ 0x80, data[at] + 1 & 0xFF} - {data[at]}:
            damaged = data[:at] + bytes((value,)) + data[at + 1 :]
            try:
                assert read(damaged) != before
            except ProtocolError as error:
                assert 0 <= error.offset <= len(data)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
                refused += 1
    assert refused > 3 * len(data)


def test_a_small_stream_cut_at_any_byte_is_an_error_but_for_its_two_ends() -> None:
    data = b"".join(SMALL)
    ends = {len(data), len(data) - 7}
    for length in range(len(data)):
        if length in ends:
            read(data[:length])
            continue
        with pytest.raises(ProtocolError, match=r"end of the input|a whole payload") as caught:
            read(data[:length])
        assert caught.value.offset <= length


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        (b"QEVX\0\0\0\3", 0, "file header at byte 0: magic 5145564d ('QEVM'), found 51455658"),
        (b"QEVM\0\0\0\2", 4, "version 3, found 2"),
        (header() + b"\x04", 8, "type of the next item at byte 8: 07, found 04"),
        (header() + b"\x07\xff\xff\xff\xff", 9, "1 to 1024 bytes, found a length of 4294967295"),
        (header() + b"\x07\0\0\0\1q\x05\x0fconfiguration/x\0\0\0\1", 14, "found 'configuration/x'"),
        (PROLOGUE + b"\x09", 17, "00 or 01 or 02 or 03 or 04 or 08, found 09"),
        (PROLOGUE + b"\x02\0\0\0\5", 18, "the id of a section that began before, found 5"),
        (PROLOGUE + b"\x08\0\x0c\0\0", 18, "a number of 1 to 11, found 12"),
        (PROLOGUE + b"\x08\0\x02\0\5", 20, "data of 4 bytes, found 5"),
        (PROLOGUE + b"\x04\0\0\0\1\1d" + bytes(8) + b"\0\x7e\0\0\0\2", 33, "7e00000001, found 7e00000002"),
        (PROLOGUE + b"\x04\0\0\0\1\1r" + bytes(8) + b"\0\0\0\0\0\0\0\1", 32, "a mark of ffffffffef100001 to 6"),
        (PROLOGUE + b"\x04\0\0\0\1\3ram" + bytes(7) + b"\5", 17, "version 4, found 5"),
        (PROLOGUE + b"\0\x01", 18, "06, found 01"),
        (PROLOGUE + b"\0\x06\0\0\0\0\0", 23, "the end of the input, found 00"),
    ],
)
def test_an_error_says_where_and_what_was_expected(data: bytes, offset: int, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(data)
    assert caught.value.offset == offset
    assert message in str(caught.value)


def test_a_section_id_belongs_to_one_device() -> None:
    data = PROLOGUE + b"".join(section_full(1, "d", b"\0") + section_full(1, "e", b"\0"))
    with pytest.raises(ProtocolError, match="a new section id, found 1, which is that of the FULL section 1 of 'd'"):
        read(data)


def test_an_error_of_the_schema_is_placed_in_the_channel() -> None:
    section = b"".join(section_full(1, "0000:01:00.0/vfio", bytes.fromhex("ffffffffef100002") + bytes(20)))
    with pytest.raises(ProtocolError, match="a schema that knows this device") as caught:
        read_in_pieces(StreamReader(RECORDS_ONLY), [PROLOGUE + section])
    assert caught.value.offset == len(PROLOGUE) + 6 + 17 + 8 + 8


def test_a_reader_that_failed_fails_again_and_one_that_ended_takes_no_more() -> None:
    reader = StreamReader(LengthPrefixed())
    reader.feed(b"nope")
    for _ in range(2):
        with pytest.raises(ProtocolError, match="QEVM"):
            reader.next_event()
    reader = StreamReader(LengthPrefixed())
    reader.feed(PROLOGUE + eof())
    reader.end()
    assert [type(event) for event in reader.events()] == [FileHeader, Configuration, Eof]
    with pytest.raises(UsageError, match="declared ended"):
        reader.feed(b"x")
    with pytest.raises(UsageError, match="contiguous"):
        StreamReader(LengthPrefixed()).feed(memoryview(b"abcdef")[::2])
