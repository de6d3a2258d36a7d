"""How many bytes a page of RAM has, where neither the configuration nor a description says it.

All but a few machines have 4 KiB; Alpha, SPARC64 and OpenRISC have 8 KiB, TriCore 16 KiB, Arm's boards without an MMU
1 KiB, AVR 256 bytes. Only a page that is in the stream with its contents cannot be read without it. So it is told
there, by what follows: behind a page stands a word, and every address and length is a multiple of a page.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final

from migpool.wire.ram import CONTINUE, EOS, MULTIFD_FLUSH, PAGE, ZERO
from migpool.wire.sections import FOOTER

FLAGS_UNSURE: Final = 0x3FF
"""The bits of a word that are flags, as long as no smaller page is known."""
SMALLEST: Final = 1 << 8
SIZES: Final = (1 << 10, SMALLEST, 1 << 13, 1 << 14)
"""But for the most common one."""

_U64: Final = struct.Struct(">Q")
_TAIL: Final = _U64.size + 1


def candidates(default: int, multiples: int) -> list[int]:
    """The sizes that are possible, the likeliest first.

    Arguments:
        default: what most machines have.
        multiples: numbers that are multiples of a page, combined by "or".
    """
    sizes = (default, *(size for size in SIZES if size != default))
    return [size for size in sizes if not multiples & (size - 1)]


def needed(page_at: int, size: int) -> int:
    """How many bytes must be there to see what follows a page that begins at ``page_at``, if it has this size."""
    return page_at + size + _TAIL


def fits(view: memoryview, page_at: int, size: int, end: int, names: Collection[str]) -> bool:
    """Whether what stands behind a page of this size can follow it.

    Arguments:
        view: bytes from the page's word on, as many as :func:`needed` or, at the end of the input, what there is.
        page_at: where the page begins in them.
        size: its size, if this is right.
        end: how long the block is.
        names: of all blocks.
    """
    at = page_at + size
    if at + _TAIL > len(view):
        return False
    (word,) = _U64.unpack_from(view, at)
    follows = view[at + _U64.size]
    flags = word & min(FLAGS_UNSURE, size - 1)
    if flags in (PAGE | CONTINUE, ZERO | CONTINUE):
        return word - flags < end and not (word - flags) & (size - 1) and (flags & PAGE or not follows)
    if flags in (PAGE, ZERO):
        name = bytes(view[at + _TAIL : at + _TAIL + follows])
        return any(each.encode()[: len(name)] == name for each in names if len(each) == follows)
    return word == MULTIFD_FLUSH or (word == EOS and follows == FOOTER)
