"""Where a stream ends, seen from bytes alone.

The states of devices are opaque, so EOF cannot be told from any other zero byte; and a source that has a return path
keeps the connection open until the destination says SHUT. The end is therefore recognised by what a stream ends with::

    00                       EOF
    06, u32 length, JSON     VMDESC: an object with "page_size" and "devices"

When the last byte that has come is the last of such a JSON text, as its length field says, and the text is a
description of a machine, then the stream is whole. This needs no waiting, and no state of a device looks so: it would
have to hold the description of a machine with EOF and the right length before it, and to end with it.

A stream may also end without a description, or with an empty one. Then the last section's footer stands before EOF,
but these few bytes also occur by chance: they count only once the source has closed the connection.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from typing import Final

_BEFORE: Final = 6  # EOF, the type and the length of VMDESC
_MARK: Final = re.compile(rb"(?=\x00\x06([\x00-\x0f][\x00-\xff]{3})\{)", re.DOTALL)
_MARK_SIZE: Final = _BEFORE + 1
_CANDIDATES: Final = 64
_BARE_END: Final = re.compile(rb"\x7e[\x00-\xff]{4}\x00(\x06\x00{4})?\Z", re.DOTALL)
_BARE_SIZE: Final = 11


class EndFinder:
    """Watches the devices' states go by and says whether a stream that ends here would be whole.

    It keeps a few bytes and a few numbers, however much goes by.

    Arguments:
        read: gives bytes that have gone by once more: where they begin, counted as ``feed`` counts, and how many.
    """

    __slots__ = ("_candidates", "_read", "_tail", "_total")

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._total = 0
        self._tail = b""
        self._candidates: deque[tuple[int, int]] = deque(maxlen=_CANDIDATES)

    def feed(self, data: bytes | memoryview) -> None:
        """Note the bytes that come next."""
        joined = self._tail + bytes(data)
        base = self._total - len(self._tail)
        self._total += len(data)
        for found in _MARK.finditer(joined, max(0, len(self._tail) - _MARK_SIZE + 1)):
            begin = base + found.start() + _BEFORE
            self._candidates.append((begin, begin + int.from_bytes(found[1], "big")))
        while self._candidates and self._candidates[0][1] < self._total:
            self._candidates.popleft()
        self._tail = joined[-_BARE_SIZE:]

    @property
    def described(self) -> bool:
        """Whether the bytes so far end with EOF and the description of a machine: nothing can follow."""
        return any(end == self._total and self._is_description(begin, end) for begin, end in self._candidates)

    @property
    def whole(self) -> bool:
        """Whether a stream that is known to have ended here is whole: described, or EOF behind a footer."""
        return self.described or _BARE_END.search(self._tail) is not None

    def _is_description(self, begin: int, end: int) -> bool:
        try:
            value = json.loads(self._read(begin, end - begin))
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and "page_size" in value and "devices" in value
