"""Why an end gives up, as it tells the other one: a line of UTF-8, 1 to 480 bytes."""

from __future__ import annotations

from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.unread import Buffer

REASON_LIMIT: Final = 480


def encode_reason(reason: str) -> bytes:
    """The bytes of a reason: line breaks become spaces, and what is too long is cut.

    Raises:
        ValueError: there is nothing in it.
    """
    text = " ".join(reason.split())
    if not text:
        raise ValueError("an end that fails must say why")
    data = text.encode("utf-8", "replace")[:REASON_LIMIT]
    # The cut may have left the beginning of a character behind.
    return data.decode("utf-8", "ignore").encode("utf-8")


def decode_reason(data: Buffer, offset: int, item: str) -> str:
    """A reason that can be shown as one line of a terminal: control characters are spaces.

    Arguments:
        offset: where in its channel the data begins, for the error.
        item: what it is the data of.

    Raises:
        ProtocolError: it is no UTF-8, or nothing that can be read.
    """
    try:
        reason = bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(offset + error.start, item, "UTF-8 text") from None
    shown = "".join(c if c.isprintable() else " " for c in reason)
    if not shown.strip():
        raise ProtocolError(offset, item, f"text that can be read, found {shown!r}")
    return shown
