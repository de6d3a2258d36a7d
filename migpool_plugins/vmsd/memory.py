"""The memory of a captured machine: its blocks as the stream names them, and at the source what stood in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from migpool.device import DeviceError, MemoryBlock, MemoryDevice, Side
from migpool.vmsd.ram import CapturedRam, captured_ram
from migpool_plugins.memory import Memory
from migpool_plugins.vmsd.capture import open_stream

__all__ = ["CapturedMemory"]


class CapturedMemory(MemoryDevice):
    """Memory that nobody runs in: so nothing is written in it while it is sent.

    Arguments:
        stream: the file of the recorded stream.
        side: which end of the migration this is.

    Raises:
        DescriptionError: the stream cannot be read, or its RAM cannot be found in it.
    """

    note = "captured"

    def __init__(self, stream: Path, side: Side) -> None:
        with open_stream(stream) as data:
            ram = captured_ram(data, str(stream))
            self.page_size = ram.page_size
            try:
                self._memory = {name: Memory(size) for name, size in ram.blocks.items()}
            except (OSError, OverflowError, ValueError) as error:
                raise DeviceError(f"memory of {sum(ram.blocks.values())} bytes cannot be had: {error}") from None
            if side == "source":
                self._fill(ram)

    def _fill(self, ram: CapturedRam) -> None:
        """Put the pages in; most are zeros that nothing was ever put into."""
        touched: set[tuple[str, int]] = set()
        for name, address, page in ram.pages:
            if page is not None:
                touched.add((name, address))
            elif (name, address) not in touched:
                continue
            self._memory[name].view[address : address + self.page_size] = page or bytes(self.page_size)

    @property
    def blocks(self) -> Sequence[MemoryBlock]:
        return [MemoryBlock(name, memory.view) for name, memory in self._memory.items()]

    def start_dirty_log(self) -> None:
        """Nothing writes in it."""

    def take_dirty(self, block: int) -> bytes:
        return bytes(-(-len(self.blocks[block].memory) // self.page_size // 8))

    def stop_dirty_log(self) -> None:
        """Nothing has been logged."""

    def close(self) -> None:
        for memory in self._memory.values():
            memory.close()
