"""Counts pages of RAM whose contents nobody asks for, without a step of Python for each.

Mostly one page follows the other: a word and the page, again and again, each word higher by a page than the one before.
The words of such a run stand at equal distances, so they are gathered by one strided copy, and compared with what they
must be as one large number. Nothing else of the pages is touched.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import Final

from migpool.wire.ram import CONTINUE, PAGE, ZERO

_U64: Final = Struct(">Q")
WORD: Final = _U64.size
"""Bytes of the word before a page."""
_FEW: Final = 16
_MANY: Final = 1024


@cache
def _words(page_size: int, count: int) -> tuple[int, int]:
    """A number whose words are 1, and one whose words are 0, 1, 2, ... pages; the first word is the highest."""
    ones = int.from_bytes((1).to_bytes(WORD, "big") * count, "big")
    return ones, int.from_bytes(b"".join((one * page_size).to_bytes(WORD, "big") for one in range(count)), "big")


def run_of_pages(view: memoryview, page_size: int, end: int) -> tuple[int, int]:
    """How many pages, whole and with their contents, stand at the beginning of ``view`` and continue one another.

    Arguments:
        view: from a page's word on.
        page_size: bytes of a page.
        end: the used length of their block: what lies behind it does not count.

    Returns:
        their number, and the address of the first one.
    """
    stride = WORD + page_size
    if len(view) < stride:
        return 0, 0
    (word,) = _U64.unpack_from(view)
    address = word & -page_size
    if word - address != PAGE | CONTINUE or address >= end:
        return 0, address
    most = min(len(view) // stride, -(-(end - address) // page_size))
    done, count = 0, _FEW
    while done < most:
        ones, steps = _words(page_size, count)
        if count > most - done:
            surplus, count = 64 * (count - most + done), most - done
            ones, steps = ones >> surplus, steps >> surplus
        there = view[done * stride : (done + count) * stride].cast("Q")[:: stride // WORD]
        differing = int.from_bytes(there.tobytes(), "big") ^ (word + done * page_size) * ones + steps
        if differing:
            return done + count - -(-differing.bit_length() // 64), address
        done += count
        count = _MANY
    return done, address


def count_pages(view: memoryview, page_size: int, end: int) -> tuple[int, int, int]:
    """Count the pages at the beginning of ``view`` that continue those before, up to what is none, not whole, or wrong.

    Arguments:
        view: from a word on.
        page_size: bytes of a page.
        end: the used length of their block.

    Returns:
        how many bytes they have, how many are there with their contents, and how many are zeros.
    """
    at = normal = zero = 0
    last, unpack, size = len(view) - WORD, _U64.unpack_from, WORD + 1
    while at <= last:
        (word,) = unpack(view, at)
        flags = word & (page_size - 1)
        if flags == ZERO | CONTINUE:
            if at == last or view[at + WORD] or word - flags >= end:
                break
            at += size
            zero += 1
        elif flags == PAGE | CONTINUE:
            count, _ = run_of_pages(view[at:], page_size, end)
            if not count:
                break
            at += count * (WORD + page_size)
            normal += count
        else:
            break
    return at, normal, zero
