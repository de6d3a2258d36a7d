"""Text that somebody else wrote: names and reasons of a peer, a stream or a file, shown without doing anything."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text without what would do something to a terminal or turn a line round: each such character is written out.

    These are control characters, escape sequences, line ends, marks of direction and halves of surrogate pairs: all
    that Unicode calls other than printable, and every space but the plain one.
    """
    return text if text.isprintable() else "".join(map(_written_out, text))


def printable_lines(text: str) -> str:
    """The same of a text of several lines, whose ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def printable_values(value: object) -> object:
    """The same of every text of several lines in what JSON can have: dictionaries, lists and tuples of plain values."""
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, dict):
        return {printable_values(key): printable_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [printable_values(one) for one in value]
    return value


def _written_out(character: str) -> str:
    code = ord(character)
    if character.isprintable():
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
