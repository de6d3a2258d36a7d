"""Parts that need no order, as a pure state machine: no threads, no sockets, no clock.

Guarantees:

1. A part comes out once, in the order of arrival; a tag that comes twice is refused by name.
2. It is known when the last part has come, in whatever order they and the config come: the config says how many there
   are. A part too many is refused.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from migpool.errors import DeviceError
from migpool.units import count_of

T = TypeVar("T")


class Parts(Generic[T]):
    """One device's parts at the destination.

    Attributes:
        received: how many parts and configs have come.
        config: the config; ``None`` until it has come.
    """

    def __init__(self) -> None:
        self.config: T | None = None
        self._waiting: deque[T] = deque()
        self._tags: set[int] = set()
        self._taken = 0
        self._count: int | None = None

    @property
    def received(self) -> int:
        return len(self._tags) + (self.config is not None)

    @property
    def exhausted(self) -> bool:
        """Whether every part has been taken."""
        return self._taken == self._count

    @property
    def complete(self) -> bool:
        """Whether every part has come, taken or not."""
        return len(self._tags) == self._count

    def put(self, tag: int, part: T, last: bool, limit: int) -> None:
        """A part has come, or the config.

        Arguments:
            tag: the part's; of the config, how many parts there are.
            part: anything.
            last: whether it is the config.
            limit: how many may have come.

        Raises:
            DeviceError: it must not come, or not again.
        """
        if self.received >= limit:
            raise DeviceError(
                f"the source sent it with room granted for {count_of(limit, 'part')}: it breaks the credit protocol"
            ).located_index(tag)
        if last:
            if self.config is not None:
                raise DeviceError("its config has come twice").located_index(tag)
            self.config, self._count = part, tag
        else:
            if tag in self._tags:
                raise DeviceError(f"the part with the tag {tag} has come twice").located_index(tag)
            self._tags.add(tag)
            self._waiting.append(part)
        if self._count is not None and len(self._tags) > self._count:
            raise DeviceError(f"{count_of(len(self._tags), 'part')} came, of {self._count}").located_index(tag)

    def take(self) -> T | None:
        """A part if one is here, else ``None``."""
        if not self._waiting:
            return None
        self._taken += 1
        return self._waiting.popleft()

    def missing(self) -> str:
        """What has not come, in words; empty if everything has."""
        if self._count is None:
            return f"its config has not come, which says how many parts there are; {len(self._tags)} have"
        left = self._count - len(self._tags)
        return f"{left} of {count_of(self._count, 'part')} did not come" if left else ""
