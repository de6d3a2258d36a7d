"""Guest memory as a device that migrates, and what it must know of the writes to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from migpool.device import DeviceError, MemoryBlock, MemoryDevice
from migpool_plugins.memory import Memory


class DirtyLog(Protocol):
    """How it is known which pages are written; see :class:`~migpool.device.MemoryDevice` for what each must keep."""

    @property
    def name(self) -> str:
        """What a reader of the result should see."""

    def start(self) -> None:
        """Log from now on."""

    def take(self) -> bytes | bytearray:
        """What has been written since the last call, as a bitmap."""

    def stop(self) -> None:
        """Log no more. Harmless when repeated."""


class RamDevice(MemoryDevice):
    """Guest memory of one block.

    Arguments:
        memory: closed with the device, so after the devices that come behind it in the machine.
        block: the block's name in the stream.
        log: knows what is written.
        check: proves at the destination that all is as it should be; raises :class:`VerificationError` if not.
    """

    def __init__(self, memory: Memory, block: str, log: DirtyLog, check: Callable[[], None]) -> None:
        self.note = log.name
        self._memory = memory
        self._blocks = (MemoryBlock(block, memory.view),)
        self._log = log
        self._check = check

    @property
    def blocks(self) -> Sequence[MemoryBlock]:
        return self._blocks

    def start_dirty_log(self) -> None:
        self._log.start()

    def take_dirty(self, block: int) -> bytes | bytearray:
        if block:
            raise DeviceError(f"the memory has one block, but block {block} was asked for")
        return self._log.take()

    def stop_dirty_log(self) -> None:
        self._log.stop()

    def verify(self) -> None:
        self._check()

    def close(self) -> None:
        self._memory.close()
