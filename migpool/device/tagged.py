"""A device whose state comes as parts with tags, to be saved and loaded in any order, several at once."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from migpool.device.device import Device


@dataclass(frozen=True, slots=True)
class Part:
    """What one call of ``save_part`` gave.

    Arguments:
        tag: what the destination is told with the bytes; 0 to 2**32 - 1, another for each part.
        length: how many bytes of the buffer were filled.
    """

    tag: int
    length: int


class TaggedDevice(Device):
    """An iterable device whose hardware says of each buffer which one it is.

    So nothing has to be put in order: parts are saved by several callers at once, travel as they come, and are loaded
    as they arrive, by several callers. The order of calls is that of every iterable device, with ``save_part`` in the
    place of ``save_state`` and ``load_part`` in that of ``load_state``; ``save_config`` comes after the last part has
    been sent, and ``load_config`` after the last one has been loaded.

    No interface of a kernel has such buffers today: ``docs/tagged-interface.md`` says what one would have to promise.

    Attributes:
        engines: how many callers are worth having at once, at either end; 1 or more.
    """

    iterable = True
    engines: int = 1

    @abstractmethod
    def save_part(self, buffer: memoryview) -> Part | None:
        """Fill ``buffer`` with any part of the stopped device's state that nobody has been given yet.

        Called by up to ``engines`` threads at once. May block on the device; ``abort`` must then end the wait.

        Arguments:
            buffer: where to put it; page-aligned, one chunk long, writable; valid only during the call.

        Returns:
            Which part it is, or ``None`` if every part has been given to somebody.
        """

    @abstractmethod
    def load_part(self, tag: int, data: memoryview) -> None:
        """Load one part, in whatever order they come, up to ``engines`` at once.

        May block on the device; ``abort`` must then end the wait. Returns when the device has taken all of it.

        Arguments:
            tag: the part's, as the source's ``save_part`` gave it; each comes once.
            data: the part's bytes; valid only during the call.
        """
