"""What can stand behind a section, for who does not know where the section ends.

A footer's five bytes can occur in a payload; a footer **and** the beginning of an item that can come next hardly do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from migpool.wire.commands import COMMAND, plausible_command
from migpool.wire.sections import Kind, SectionHead
from migpool.wire.stream import EOF, VMDESC, VMDESC_HEAD

ANY_FOOTER: Final = re.compile(rb"\x7e([\s\S]{4})(?=[\x00-\x04\x08]|\Z)")
"""A footer with something behind it that may be an item; :func:`can_follow` tells whether it is one."""

_HEAD: Final = 6  # u8 type, u32 section id, u8 n
_NUMBERS: Final = 8
_PADDING: Final = 64
_LARGEST_VERSION: Final = 99_999_999  # some are dates: 20061113
_PRINTABLE: Final = re.compile(rb"[!-~ ]*")


def can_follow(data: memoryview, at: int, known: Mapping[int, SectionHead], *, ended: bool) -> bool | None:
    """Whether what begins at ``at`` can follow a section.

    Arguments:
        data: the stream from somewhere on.
        at: an index into it, perhaps its end.
        known: the sections that have begun, by their ids.
        ended: nothing comes behind ``data``.

    Returns:
        ``None`` if there is too little of it to tell and more comes. At the end of a stream that was cut, what there
        is decides.
    """
    rest = data[at : at + _HEAD + 255 + _NUMBERS]
    if not rest:
        return True if ended else None
    kind = rest[0]
    if kind == COMMAND:
        return plausible_command(rest) if ended or len(rest) >= 5 else None
    if kind == EOF:
        return _ends(data, at, ended=ended)
    if kind not in (Kind.START, Kind.PART, Kind.END, Kind.FULL):
        return False
    if len(rest) < _HEAD:
        return _unsure(ended=ended)
    begun = known.get(int.from_bytes(rest[1:5], "big"))
    if kind in (Kind.PART, Kind.END):
        return begun is not None and begun.kind is Kind.START
    return _begins(rest, begun, ended=ended)


def _begins(rest: memoryview, begun: SectionHead | None, *, ended: bool) -> bool | None:
    """Whether a section with a name begins here."""
    end = _HEAD + rest[5]
    name = bytes(rest[_HEAD:end])
    if end == _HEAD or not _PRINTABLE.fullmatch(name):
        return False
    if len(rest) < end + _NUMBERS:
        return _unsure(ended=ended)
    version = int.from_bytes(rest[end + 4 : end + _NUMBERS], "big")
    return version <= _LARGEST_VERSION and (begun is None or begun.idstr.encode() == name)


def _ends(data: memoryview, at: int, *, ended: bool) -> bool | None:
    """Whether the stream ends here: with its description, or with nothing but zeros behind it."""
    rest = bytes(data[at + 1 : at + 1 + max(_PADDING, VMDESC_HEAD.size + 1)])
    if rest[:1] == bytes((VMDESC,)):
        if len(rest) <= VMDESC_HEAD.size:
            return _unsure(ended=ended)
        return rest[VMDESC_HEAD.size :][:1] == b"{" or not any(rest[1 : VMDESC_HEAD.size])
    if any(rest):
        return False
    if not ended:
        return None
    return not any(bytes(data[at + 1 :]).strip(b"\0"))


def _unsure(*, ended: bool) -> bool | None:
    return True if ended else None
