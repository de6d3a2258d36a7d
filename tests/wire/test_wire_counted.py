"""Pages that are only counted: as many of each block, and the same error, as where each is looked at."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import ProtocolError
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.pageruns import run_of_pages
from migpool.wire.ram import ZERO_PAGE, CountedPages, RamBlock, RamPages, block_list, pages, ram_section_end
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import StreamReader, eof, header
from migpool.wire.unread import Buffer
from tests.support.made_streams import LengthPrefixed, in_pieces

BLOCKS = [RamBlock("a", 2048 * 1024), RamBlock("b", 64 * 1024)]
PAGE = 1024
"""Bytes of a page: small, so that a run may be long."""
CONTENT = bytes(PAGE)

runs = st.tuples(
    st.sampled_from(BLOCKS), st.booleans(), st.integers(0, 2047), st.integers(1, 30) | st.sampled_from([64, 1100])
)
sections = st.lists(st.lists(st.lists(runs, min_size=1, max_size=4), max_size=3), min_size=1, max_size=3)


def made(parts: list[list[list[tuple[RamBlock, bool, int, int]]]]) -> bytes:
    """A stream whose RAM sections have runs of pages: of a block, zeros or not, from a page on, so many."""
    stream: list[Buffer] = [header(), configuration(Configuration("none", page_bits=10))]
    stream += [head_bytes(SectionHead(Kind.START, 2, "ram", 0, 4)), block_list(BLOCKS), ram_section_end(2)]
    for part in parts:
        stream.append(head_bytes(SectionHead(Kind.PART, 2, "", 0, 0)))
        for named in part:
            block = named[0][0]
            entries: list[tuple[int, Buffer | None]] = []
            for _, zero, first, count in named:
                last = block.used_length // PAGE
                numbers = range(first % last, min(last, first % last + count))
                entries += [(number * PAGE, None if zero else CONTENT) for number in numbers]
            stream += pages(block.name, entries)
        stream.append(ram_section_end(2))
    return b"".join(bytes(part) for part in [*stream, eof()])


def walked(stream: bytes, cuts: list[int], counts: bool) -> tuple[Counter[tuple[str, str]], int, str]:
    """How many pages of each block there are, how many bytes were understood, and what was wrong."""
    reader = StreamReader(LengthPrefixed(), batch=1)
    if counts:
        reader.count_pages()
    found: Counter[tuple[str, str]] = Counter()
    wrong = ""
    try:
        for piece in in_pieces(stream, cuts):
            reader.feed(piece)
            _add(found, reader)
        reader.end()
    except ProtocolError as error:
        wrong = str(error)
    with suppress(ProtocolError):  # what could be had only at the end, and the same error again
        _add(found, reader)
    return found, reader.offset, wrong


def _add(found: Counter[tuple[str, str]], reader: StreamReader) -> None:
    for event in reader.events():
        if isinstance(event, CountedPages):
            found[event.block, "normal"] += event.normal
            found[event.block, "zero"] += event.zero
        elif isinstance(event, RamPages):
            found[event.block, "zero" if event.positions[0] == ZERO_PAGE else "normal"] += 1


@given(sections, st.lists(st.integers(0, 1 << 30), max_size=5), st.data())
def test_counted_pages_are_those_that_are_there_also_of_a_stream_that_is_cut_or_damaged(
    parts: list[list[list[tuple[RamBlock, bool, int, int]]]], cuts: list[int], data: st.DataObject
) -> None:
    stream = bytearray(made(parts))
    for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=2)):
        # Near a page's word, not within the page, where it would change nothing.
        stream[at - at % (PAGE + 8) + 62 if len(stream) > at - at % (PAGE + 8) + 62 else at] ^= 1 << at % 8
    end = data.draw(st.just(len(stream)) | st.integers(1, len(stream)))
    looked, counted = (walked(bytes(stream[:end]), cuts, counts) for counts in (False, True))
    assert +counted[0] == +looked[0]
    assert counted[1:] == looked[1:]


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 3000), st.integers(0, PAGE + 7))
def test_a_run_ends_where_a_word_is_another_the_block_ends_or_a_page_is_not_whole(
    there: int, other: int, limit: int, short: int
) -> None:
    entries = b"".join(b"".join(pages("a", [(n * PAGE, CONTENT)], named=False)) for n in range(there))
    stream = bytearray(entries)
    if other < there:
        stream[other * (PAGE + 8) + other % 8] ^= 0x10
    whole = max(0, len(stream) - short)
    right = min(other, limit, whole // (PAGE + 8))
    if other == 0 and there and right == 0:
        limit = 0  # the first word may then be that of another page, which begins a run of its own
    assert run_of_pages(memoryview(bytes(stream[:whole])), PAGE, limit * PAGE)[0] == right
