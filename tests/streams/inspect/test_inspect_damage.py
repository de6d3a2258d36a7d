"""Truncated and damaged streams are shown as far as they go, with the byte at which they are wrong."""

from __future__ import annotations

import io

import pytest

from migpool.errors import UsageError
from migpool.streams.inspect.decoding import decode
from migpool.streams.inspect.iterables import bitmaps_size
from migpool.streams.inspect.outline import device_outline, stream_outline
from migpool.streams.inspect.reading import inspect_bytes
from migpool.untrusted.text import printable
from migpool.wire.commands import packaged
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.ram import RamBlock, block_list, pages
from migpool.wire.records import config_record, end_payload
from migpool.wire.stream import eof, header, vm_description
from tests.support.inspections import inspect_file, inspect_pipe
from tests.support.other_streams import RICH, other
from tests.support.wire_bytes import section_full, section_start

PROLOGUE = header() + configuration(Configuration("q"))
WHOLE = inspect_file(RICH)


def test_a_stream_cut_in_a_section_shows_the_sections_before_it() -> None:
    summary = inspect_bytes(RICH.read_bytes()[:200000])
    assert summary.problem is not None
    assert (summary.problem.offset, summary.size) == (78581, 200000)
    assert "section 41 of '0000:00:01.0/e1000e'" in summary.problem.item
    assert "the end of the input" in summary.problem.expected
    assert [(s.idstr, s.size) for s in summary.sections] == [(s.idstr, s.size) for s in WHOLE.sections[:34]]


def test_a_stream_cut_in_its_description_has_every_section() -> None:
    summary = inspect_bytes(RICH.read_bytes()[:-1])
    assert summary.problem is not None
    assert (summary.problem.offset, summary.problem.item) == (311593 + 5, "VM description")
    assert [(s.idstr, s.size) for s in summary.sections] == [(s.idstr, s.size) for s in WHOLE.sections]


@pytest.mark.parametrize("length", range(0, 1355, 7))
def test_a_stream_cut_anywhere_ends_with_one_problem_within_it(length: int) -> None:
    stream = (RICH.parent / "none.mig").read_bytes()[:length]
    summary = inspect_bytes(stream)
    assert summary.problem is not None
    assert summary.problem.offset <= length
    assert inspect_pipe(io.BytesIO(stream)).problem == summary.problem


def test_a_damaged_footer_is_named_with_its_byte() -> None:
    stream = bytearray(RICH.read_bytes())
    at = WHOLE.sections[10].offset
    stream[at - 5] ^= 0xFF
    summary = inspect_bytes(bytes(stream))
    assert summary.problem is not None
    assert summary.problem.offset == at - 5
    assert summary.problem.item.startswith("footer of FULL section")
    assert len(summary.sections) == 9
    assert summary.description is not None


def test_a_description_that_is_no_json_is_a_fault_and_the_sections_are_guessed() -> None:
    stream = RICH.read_bytes().replace(b'"page_size"', b'"page_size')
    stream = stream.replace(b"\x06\x00\x01\x31\x66", b"\x06\x00\x01\x31\x65")
    summary = inspect_bytes(stream)
    assert summary.problem is None
    assert summary.description is not None
    assert summary.description.devices is None
    assert summary.description.fault is not None
    assert [section.size for section in summary.sections] == [section.size for section in WHOLE.sections]


def test_a_payload_that_holds_another_footer_is_not_guessed_at() -> None:
    payload = b"ab\x7e\0\0\0\1\x04\0\0\0\2\1d" + bytes(8)
    stream = PROLOGUE + b"".join(section_full(1, "d", payload)) + b"".join(section_full(2, "e", b"x")) + eof()
    summary = inspect_bytes(stream)
    assert summary.problem is not None
    assert "found 2 of them" in summary.problem.expected


def test_sections_inside_of_a_package_are_listed() -> None:
    inner = b"".join([*section_full(4, "d", b"abc"), *section_full(5, "e", b"")])
    summary = inspect_bytes(PROLOGUE + b"".join(packaged(inner)) + eof() + b"".join(vm_description(b"")))
    assert summary.problem is None
    assert [(section.idstr, section.size) for section in summary.sections] == [("d", 3), ("e", 0)]
    assert summary.commands[0].name == "PACKAGED"
    broken = inspect_bytes(PROLOGUE + b"".join(packaged(inner[:-2])) + eof())
    assert broken.problem is not None
    assert [section.idstr for section in broken.sections] == ["d"]


def test_the_config_of_a_vfio_device_ends_at_its_end_mark() -> None:
    config = [*config_record(b"PCI config"), end_payload()]
    stream = PROLOGUE + b"".join(section_full(3, "0000:01:00.0/vfio", config)) + eof()
    summary = inspect_bytes(stream)
    assert summary.problem is None
    assert [(s.size, s.framing.value) for s in summary.sections] == [(26, "guessed")]
    cut = inspect_bytes(stream[:-6])
    assert cut.problem is not None


def test_pages_are_counted_by_block() -> None:
    ram = [block_list([RamBlock("a", 8192), RamBlock("b", 4096)]), *pages("a", [(0, bytes(4096)), (4096, None)]),
           *pages("b", [(0, None)]), bytes(7) + b"\x10"]  # fmt: skip
    summary = inspect_bytes(PROLOGUE + b"".join(section_start(2, "ram", ram, version=4)) + eof())
    assert [(block.name, block.normal, block.zero) for block in summary.blocks] == [("a", 1, 1), ("b", 0, 1)]


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"\x01", 1),
        (b"", None),
        (bytes.fromhex("1c 02 6430 03 626d30 00010000 01 01"), 14),
        (bytes.fromhex("42 0000000000000000 00000800 20 01"), 15),
        (bytes.fromhex("40 0000000000000000 00000800 0000000000000002 ffff 01"), 24),
        (bytes.fromhex("40 0000000000000000 00000800 00000000"), None),
        (bytes.fromhex("1c 02 64"), None),
    ],
)
def test_the_length_of_dirty_bitmaps(data: bytes, size: int | None) -> None:
    assert bitmaps_size(memoryview(data)) == size
    assert size is None or bitmaps_size(memoryview(data + b"\x7e")) == size


def test_a_file_that_is_no_stream_is_called_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files")
    (folder / "empty").touch()
    with pytest.raises(UsageError, match="is empty"):
        inspect_file(folder / "empty")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        inspect_file(folder / "nothing")
    (folder / "broken.gz").write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(UsageError, match="cannot be decompressed"):
        inspect_file(folder / "broken.gz")
    (folder / "channel").write_bytes(bytes.fromhex("11223344 00000001") + bytes(56))
    summary = inspect_file(folder / "channel")
    assert summary.problem is not None
    assert "multifd channel" in summary.notes[0]


def test_what_a_stream_says_cannot_control_the_terminal() -> None:
    stream = PROLOGUE + b"".join(section_full(1, "d\x1b[2J", b"x")) + eof()
    summary = inspect_bytes(stream, lambda *_: True)
    outlines = [stream_outline("x", summary), *map(device_outline, decode(summary))]
    assert "\x1b" not in repr(outlines).replace("\\x1b", "")
    assert printable("d\x1b[2J") == "d\\x1b[2J"


def test_fields_without_a_description_are_shown_as_bytes() -> None:
    summary = inspect_bytes(other("microvm-no-description"), lambda idstr, _: idstr == "timer")
    (device,) = decode(summary)
    assert device.fields is None
    assert device.fault == "the stream has no description of it"
    assert device_outline(device).below[1].label.startswith("0000  00 ")
