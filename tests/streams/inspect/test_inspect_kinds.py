"""Kinds of stream that no capture here has: written by hand, in the form in which real machines write them."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.streams.inspect.decoding import decode
from migpool.streams.inspect.reading import inspect_bytes
from migpool.streams.inspect.summary import Framing, StreamSummary
from migpool.wire.commands import Command, CommandKind, command
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages
from migpool.wire.records import config_record, data_record, end_payload, initial_data_sent, setup_payload
from migpool.wire.sections import footer, section_end, section_part
from migpool.wire.stream import eof, header, vm_description
from tests.support.inspections import inspect_pipe
from tests.support.wire_bytes import section_full, section_start

PAGE = 4096
PROLOGUE = header() + configuration(Configuration("q"))
EOS = bytes(7) + b"\x10"
WORD = struct.Struct(">Q")
RAM, DEVICE = 2, 6
BLOCKS = (RamBlock("a", 16 * PAGE),)


def joined(*parts: bytes | Sequence[bytes | bytearray | memoryview]) -> bytes:
    return b"".join(part if isinstance(part, bytes) else b"".join(map(bytes, part)) for part in parts)


def described(*devices: tuple[str, int]) -> bytes:
    """EOF and a description of devices in the old style, of which only the sizes are known."""
    entries = [
        {"name": name, "instance_id": 0, "size": size, "fields": [{"name": "data", "type": "buffer", "size": size}]}
        for name, size in devices
    ]
    text = json.dumps({"page_size": PAGE, "devices": entries}).encode()
    return joined(eof(), vm_description(text))


def ram_start(*more: bytes) -> bytes:
    return joined(section_start(RAM, "ram", [block_list(BLOCKS), *more, EOS], version=4))


def with_iterable(idstr: str, payloads: Sequence[bytes]) -> bytes:
    """A stream with a device's sections between those of RAM, and another device behind them."""
    page = joined(section_part(RAM, [*pages("a", [(0, bytes(range(256)) * 16), (PAGE, None)]), EOS]))
    start, *parts, end = payloads
    return joined(
        PROLOGUE,
        ram_start(),
        section_start(DEVICE, idstr, start),
        *(page + joined(section_part(DEVICE, part)) for part in parts),
        section_end(RAM, EOS),
        section_end(DEVICE, end),
        section_full(9, "timer", bytes(24)),
        described(("timer", 24)),
    )


def both(stream: bytes) -> StreamSummary:
    """What is in a stream, the same from a file and from a pipe."""
    summary = inspect_bytes(stream, lambda *_: True)
    assert inspect_pipe(io.BytesIO(stream), lambda *_: True) == summary
    return summary


ENTRY = bytes(range(16))
FORMS = {
    "s390-storage_attributes": (
        WORD.pack(1),
        joined(WORD.pack(0x2000 | 2), WORD.pack(5), b"\x7e\0\0\0\6", WORD.pack(1)),
        WORD.pack(8) + WORD.pack(1),
    ),
    "spapr/htab": (
        b"\0\0\0\x18",
        joined(bytes(4), struct.pack(">IHH", 7, 2, 3), ENTRY, footer(DEVICE) + b"\x02\0\0\0\6" + bytes(6), bytes(8)),
        bytes(12),
    ),
    "dirty-bitmap": (bytes.fromhex("1c 02 6430 03 626d30 00010000 01 01"), b"\x01", bytes.fromhex("2001")),
    "block": (
        WORD.pack(2),
        joined(WORD.pack(0x201), b"\2d0", footer(DEVICE) * 209715 + b"x", WORD.pack(0x209), b"\2d0", WORD.pack(2)),
        joined(WORD.pack(100 << 9 | 4), WORD.pack(2)),
    ),
}  # fmt: skip


OLDER = {
    "s390-storage_attributes": (
        WORD.pack(1),
        joined(WORD.pack(0x1002), WORD.pack(1), b"\1", WORD.pack(4)),
        WORD.pack(8),
    )
}
"""Without EOS behind the last word."""


@pytest.mark.parametrize(
    ("idstr", "payloads"), [*FORMS.items(), *OLDER.items()], ids=[*FORMS, *(f"{n}, older" for n in OLDER)]
)
def test_an_iterable_device_of_a_known_form_says_itself_where_its_sections_end(
    idstr: str, payloads: tuple[bytes, ...]
) -> None:
    summary = both(with_iterable(idstr, payloads))
    assert summary.problem is None
    found = [(one.kind, one.size, one.framing) for one in summary.sections if one.idstr == idstr]
    assert found == [
        (kind, len(payload), Framing.SELF) for kind, payload in zip(("START", "PART", "END"), payloads, strict=True)
    ]
    assert summary.sections[-1].idstr == "timer"


# What looks like a footer, and like an item behind one, is what a reader could stumble over.
MARK = footer(DEVICE)
DECOYS = st.sampled_from(
    [MARK, MARK[:4], footer(RAM), b"\4\0\0\0\x09", b"\2\0\0\0\x63", b"\0\6\0\0", b"\x08\0\x63", b"ab"]
)
PAYLOADS = st.lists(DECOYS, max_size=6).map(b"".join).map(lambda raw: raw + b"\xff")


@given(st.lists(PAYLOADS, min_size=2, max_size=5))
def test_an_unknown_iterable_device_is_walked_by_its_footers(payloads: list[bytes]) -> None:
    summary = both(with_iterable("later/device", payloads))
    assert summary.problem is None
    found = [one for one in summary.sections if one.idstr == "later/device"]
    assert sum(one.count for one in found) == len(payloads)
    assert sum(one.size for one in found) == sum(map(len, payloads))
    assert {one.framing for one in found} == {Framing.OPAQUE}


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 15), st.binary(min_size=1)), max_size=8))
def test_packed_pages_are_counted_among_the_others(drawn: list[tuple[bool, bool, int, bytes]]) -> None:
    parts = [*pages("a", [(0, None)])]
    for xbzrle, named, number, data in drawn:
        flags = (0x40 if xbzrle else 0x100) | (0 if named else 0x20)
        data = data if xbzrle else zlib.compress(data)
        size = struct.pack(">BH", 1, len(data)) if xbzrle else struct.pack(">I", len(data))
        parts += [
            WORD.pack(number * PAGE | flags),
            b"\1a" if named else b"",
            size,
            data,
            *pages("a", [(0, None)], named=False),
        ]
    summary = both(joined(PROLOGUE, ram_start(), section_end(RAM, [*parts, EOS]), eof()))
    assert summary.problem is None
    (block,) = summary.blocks
    xbzrles = sum(xbzrle for xbzrle, *_ in drawn)
    assert (block.zero, block.xbzrle, block.zlib) == (1 + len(drawn), xbzrles, len(drawn) - xbzrles)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (joined(WORD.pack(0x60), b"\2\0\1x"), "encoding 1, found 2"),
        (joined(WORD.pack(0x60), b"\1\xff\xff"), "1 to 8192 bytes, found 65535"),
        (joined(WORD.pack(0x10000 | 0x60), b"\1\0\1x"), "an address below 0x10000"),
        (joined(WORD.pack(0x40), b"\1b", b"\1\0\1x"), "a block of the list of blocks, found 'b'"),
        (WORD.pack(0x80), "flag 080 says that they went over RDMA"),
    ],
)
def test_a_packed_page_that_cannot_be_is_named(word: bytes, said: str) -> None:
    stream = joined(PROLOGUE, ram_start(), section_end(RAM, [*pages("a", [(0, None)]), word]))
    summary = inspect_bytes(stream)
    assert summary.problem is not None
    assert said in summary.problem.expected
    assert summary.blocks[0].zero == 1


def mapped(base: int) -> bytes:
    """A stream of two blocks with pages at fixed places, ``base`` bytes from the beginning of its file."""
    stream = header() + configuration(Configuration("q", None, ("mapped-ram",)))
    blocks = [("a", 3, 0b101), ("shared", 7, 0), ("b", 130, 1 << 129 | 1)]
    word = WORD.pack(sum(count for _, count, _ in blocks) * PAGE | 4)
    stream += b"\1" + struct.pack(">I", RAM) + b"\3ram" + struct.pack(">II", 0, 4) + word
    for name, count, bits in blocks:
        if not bits:  # shared
            stream += (
                bytes((len(name),)) + name.encode() + WORD.pack(count * PAGE) + struct.pack(">IQQQ", 1, PAGE, 0, 0)
            )
            continue
        stream += bytes((len(name),)) + name.encode() + WORD.pack(count * PAGE)
        bitmap = bits.to_bytes(-(-count // 64) * 8, "little")
        place = base + len(stream) + 28
        begin = -(-(place + len(bitmap)) // PAGE) * PAGE
        stream += struct.pack(">IQQQ", 1, PAGE, place, begin) + bitmap
        stream += bytes(begin - base - len(stream)) + b"P" * (count * PAGE)
    return joined(stream, EOS, footer(RAM), section_end(RAM, EOS), section_full(9, "timer", bytes(24)),
                  described(("timer", 24)))  # fmt: skip


@pytest.mark.parametrize("base", [0, 4096, 12345])
def test_pages_at_fixed_places_are_counted_wherever_in_its_file_the_stream_begins(base: int) -> None:
    summary = both(mapped(base))
    assert summary.problem is None
    assert [(block.name, block.pages) for block in summary.blocks] == [("a", 2), ("shared", 0), ("b", 2)]
    assert [section.idstr for section in summary.sections] == ["ram", "ram", "timer"]
    cut = both(mapped(base)[: 8 * PAGE])
    assert cut.problem is not None
    assert "RAM block 'b'" in cut.problem.item


@pytest.mark.parametrize("huge", [0, 2 << 20])
def test_after_postcopy_advise_the_list_of_blocks_may_have_the_size_of_huge_pages(huge: int) -> None:
    advise = command(Command(CommandKind.POSTCOPY_ADVISE, WORD.pack(PAGE | huge) + WORD.pack(PAGE)))
    blocks = [
        RamBlock("a", 2 << 20, None, huge or None),
        RamBlock("b", PAGE),
        RamBlock("c", 2 << 20, None, huge or None),
    ]
    ram = section_start(RAM, "ram", [block_list(blocks), *pages("b", [(0, None)]), EOS], version=4)
    summary = both(joined(PROLOGUE, advise, ram, section_end(RAM, EOS), eof()))
    assert summary.problem is None
    assert [block.name for block in summary.blocks] == ["a", "b", "c"]


CONFIG = b"\0\0\0\2" + bytes.fromhex("4348 5332") + bytes(252) + struct.pack(">4I", 0, 1, 0, 0)
VFIO = "0000:00:01.0/vfio"


def vfio(full: bytes, size: int | None) -> bytes:
    """A VFIO device in the main channel, whose description, if there is one, says ``size``."""
    return joined(
        PROLOGUE,
        section_start(DEVICE, VFIO, setup_payload()),
        section_part(DEVICE, [*data_record(b"initial"), initial_data_sent()]),
        section_end(DEVICE, [*data_record(footer(DEVICE)), end_payload()]),
        section_full(DEVICE, VFIO, full),
        section_full(9, "timer", bytes(24)),
        eof() if size is None else described((VFIO, size), ("timer", 24)),
    )


FRAMED = joined(config_record(CONFIG), end_payload())
READY = bytes.fromhex("ffffffffef100006")
LATER = bytes.fromhex("ffffffffef1000ff 0001")


@pytest.mark.parametrize("size", [None, len(CONFIG), len(FRAMED)])
@pytest.mark.parametrize("full", [FRAMED, READY, end_payload(), LATER])
def test_a_vfio_device_in_the_main_channel_is_walked_whatever_its_description_counts(
    full: bytes, size: int | None
) -> None:
    summary = both(vfio(full, size if full in (FRAMED, LATER) else None if size is None else len(full)))
    assert summary.problem is None
    assert [(one.kind, one.size) for one in summary.sections if one.idstr == VFIO] == [
        ("START", 16), ("PART", 31), ("END", 29), ("FULL", len(full))
    ]  # fmt: skip


def test_what_is_known_of_a_vfio_device_is_shown() -> None:
    start, part, _, full, _ = decode(both(vfio(FRAMED, len(FRAMED))))
    assert start.fields == {"pieces": ["SETUP at byte 45", "END at byte 53"]}
    assert part.fields is not None
    assert str(part.fields["pieces"]).startswith("['DATA, 7 bytes at byte")
    assert full.fields is not None
    config = full.fields["config"]
    assert isinstance(config, dict)
    assert (config["vendor"], config["device"], config["version"]) == ("0x4843", "0x3253", "2")
    assert config["pins"] == ["0x00000000", "0x00000001", "0x00000000", "0x00000000"]


def test_zeros_behind_the_end_are_a_remark_and_anything_else_is_not_part_of_the_stream() -> None:
    stream = joined(PROLOGUE, section_full(9, "timer", bytes(24)), described(("timer", 24)))
    padded = both(stream + bytes(100_000))
    assert padded.problem is None
    assert any("100000 zeros stand behind the stream's end" in note for note in padded.notes)
    assert padded.description is not None
    followed = both(stream + bytes(10) + b"x")
    assert followed.problem is not None
    assert followed.problem.offset == len(stream) + 10
    assert [section.idstr for section in followed.sections] == ["timer"]


def test_what_a_later_qemu_says_is_named_and_the_rest_is_shown() -> None:
    later = b"\5\x14configuration/future\0\0\0\1" + bytes(11)
    command_12 = struct.pack(">BHH", 8, 12, 3) + b"abc"
    behind = joined(section_full(9, "timer", bytes(24)), described(("timer", 24)))
    summary = both(joined(header(), configuration(Configuration("q")), later, ram_start(), command_12, behind))
    assert summary.problem is None
    assert any("configuration/future, version 1, 11 bytes at byte 14" in note for note in summary.notes)
    assert [(one.name, one.size) for one in summary.commands] == [("command 12 (not known here)", 3)]
    assert summary.sections[-1].idstr == "timer"


def test_a_mark_of_a_later_qemu_is_named_with_its_byte() -> None:
    summary = both(vfio(LATER, None))
    assert summary.problem is None
    (note,) = [note for note in summary.notes if "is not understood from byte" in note]
    assert note.endswith("found ffffffffef1000ff")


@pytest.mark.parametrize(("machine", "size"), [("clipper", 8192), ("sun4u", 8192), ("pc-q35-10.0", 4096)])
def test_pages_of_another_size_are_known_from_the_machine_where_nothing_else_says_it(machine: str, size: int) -> None:
    blocks = [block_list([RamBlock("a", 4 * size)]), *pages("a", [(0, bytes(size)), (size, None)]), EOS]
    stream = joined(
        header(), configuration(Configuration(machine)), section_start(RAM, "ram", blocks, version=4), eof()
    )
    summary = both(stream)
    assert summary.problem is None
    assert (summary.page_size, summary.blocks[0].pages) == (size, 2)


@pytest.mark.parametrize("wrong", [-3, 4, 20, 5000])
def test_a_section_that_its_description_is_wrong_about_ends_at_its_footer(wrong: int) -> None:
    payload = bytes(range(40))
    sections = [section_full(8, "css", payload), section_full(9, "timer", bytes(24))]
    stream = joined(
        PROLOGUE, ram_start(), section_end(RAM, EOS), *sections, described(("css", 40 + wrong), ("timer", 24))
    )
    summary = both(stream)
    assert summary.problem is None
    assert [(one.idstr, one.size, one.framing) for one in summary.sections[2:]] == [
        ("css", 40, Framing.GUESSED), ("timer", 24, Framing.OPAQUE)
    ]  # fmt: skip
    assert any(f"is described with {40 + wrong} bytes and has 40" in note for note in summary.notes)


@pytest.mark.parametrize("idstr", FORMS)
def test_a_known_device_of_another_form_is_walked_by_its_footers(idstr: str) -> None:
    start, _, end = FORMS[idstr]
    payloads = [start + b"of a later version", b"\1 of a later version", end + b"of a later version"]
    summary = both(with_iterable(idstr, payloads))
    assert summary.problem is None
    assert [one.size for one in summary.sections if one.idstr == idstr] == list(map(len, payloads))
