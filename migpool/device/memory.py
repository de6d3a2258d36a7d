"""The guest's memory as a device: where its pages are, and which of them are written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from migpool.device.device import Device
from migpool.errors import DeviceError


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """A piece of guest memory.

    Arguments:
        name: of the block in the stream, 1 to 255 bytes of ASCII; the same at both ends.
        memory: all of it, writable, page-aligned, one byte an item; its length is a multiple of the page size and the
            same at both ends. It is looked at from several threads while the machine runs.
    """

    name: str
    memory: memoryview


class MemoryDevice(Device):
    """The guest's memory: blocks of pages, and the log of which pages are written.

    migpool reads and writes the blocks' pages in place; the device only says where they are and which have been
    written. There is one such device in a machine at most, and its name in the stream is ``ram``.

    The order of calls at the source, all on the migration's thread::

        save_setup()
        start_dirty_log()                       every page is sent once from here on
        take_dirty(block) ...                   round by round, and once more after every device has stopped
        stop_dirty_log()                        after success, failure and cancel alike

    At the destination the pages are written from ``load_setup`` on, in any order, and ``load_config`` is never called;
    ``start`` comes after the last page.

    Attributes:
        page_size: bytes of a page, a power of two from 4096 to 65536.
    """

    idstr = "ram"
    version = 4
    comparable = False  # it is written from the start on
    page_size: int = 4096

    @property
    @abstractmethod
    def blocks(self) -> Sequence[MemoryBlock]:
        """The memory, in an order that never changes."""

    @abstractmethod
    def start_dirty_log(self) -> None:
        """Log from now on which pages are written, by whomever: vCPUs, other devices."""

    @abstractmethod
    def take_dirty(self, block: int) -> bytes | bytearray | memoryview:
        """Return which pages have been written since the last call, or since the log was started, and forget it.

        A page that is written while this runs must be in this answer or in the next one; the page's content is read
        only after the answer. More pages than were written may be named.

        Arguments:
            block: its place in ``blocks``.

        Returns:
            A bit a page, the least significant bit of each byte first; valid until the next call.
        """

    @abstractmethod
    def stop_dirty_log(self) -> None:
        """Log no more; also called without ``start_dirty_log``, and must be harmless then."""

    def save_config(self) -> bytes:
        """There is none: a memory device's state is its pages."""
        return b""

    def load_config(self, data: bytes) -> None:
        """There is none."""
        if data:
            raise DeviceError(f"a config of {len(data)} bytes has come for the memory, which has none")
