"""The file that a machine is stored in, while it is written.

RAM that came in multifd packets becomes PART sections of the main stream, one a packet. A page that the source sent
again stands in the file again, later: who loads the file in order ends with the last state. So nothing of RAM is kept
in memory.

Guarantee: under its own name the file is whole and on the disk, or it does not exist. Until then it has the suffix
``.partial``, and it is removed when storing fails.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from migpool.errors import MigpoolError, UsageError
from migpool.transport.sockets import MOST_BUFFERS, behind
from migpool.wire.ram import RamBlocks, block_list, pages, ram_section_end
from migpool.wire.ramheader import RamPacketHeader
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.unread import Buffer


class StreamFile:
    """A stream file that is being written; a context manager.

    Arguments:
        path: its name once it is whole. Nothing may have that name.

    Raises:
        UsageError: something has it, or no file can be made there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")
        if path.exists():
            raise UsageError(f"{path} exists: a stored machine is not overwritten; name another file, or remove it")
        try:
            self._fd = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise UsageError(
                f"{self._partial} exists: another receive writes it, or one was killed; remove it then"
            ) from None
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
        self._kept = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if not self._kept:
            self._partial.unlink(missing_ok=True)

    def write(self, *buffers: Buffer) -> None:
        """Append bytes.

        Raises:
            MigpoolError: the disk takes no more.
        """
        waiting = [memoryview(buffer) for buffer in buffers if len(buffer)]
        try:
            while waiting:
                written = os.writev(self._fd, waiting[:MOST_BUFFERS])
                self.size += written
                waiting = behind(waiting, written)
        except OSError as error:
            raise MigpoolError(f"{self._partial} cannot be written: {error.strerror or error}") from None

    def read(self, offset: int, size: int) -> bytes:
        """Bytes that were written before."""
        return os.pread(self._fd, size, offset)

    def cut(self, offset: int) -> None:
        """Take back what was written from ``offset`` on."""
        os.ftruncate(self._fd, offset)
        os.lseek(self._fd, offset, os.SEEK_SET)
        self.size = offset

    def blocks(self, head: SectionHead, blocks: RamBlocks) -> None:
        """Append RAM's START section with the list of blocks and no pages."""
        self.write(head_bytes(head), block_list(blocks.blocks), ram_section_end(head.section_id))

    def pages(self, head: SectionHead, block: str, entries: Sequence[tuple[int, Buffer | None]]) -> None:
        """Append a PART section of RAM.

        Arguments:
            head: RAM's START section's.
            block: the pages' block.
            entries: address in bytes, and the page's bytes or None for zeros, of each.
        """
        part = head_bytes(replace(head, kind=Kind.PART))
        self.write(part, *pages(block, entries), ram_section_end(head.section_id))

    def packet(self, head: SectionHead, header: RamPacketHeader, payload: Buffer, page_size: int) -> None:
        """Append a PART section with the pages of a multifd packet without compression."""
        view = memoryview(payload)
        normal = zip(header.normal, (view[at : at + page_size] for at in itertools.count(0, page_size)), strict=False)
        self.pages(head, header.block, [*normal, *((address, None) for address in header.zero)])

    def ram_ended(self, head: SectionHead) -> None:
        """Append an END section of RAM without pages."""
        self.write(head_bytes(replace(head, kind=Kind.END)), ram_section_end(head.section_id))

    def keep(self) -> None:
        """Give the file its name, once all of it is on the disk.

        Raises:
            MigpoolError: the disk failed, or something has taken the name meanwhile.
        """
        try:
            os.fsync(self._fd)
            if self.path.exists():
                raise MigpoolError(f"{self.path} has come into being meanwhile, and is not overwritten")
            self._partial.rename(self.path)
            directory = os.open(self.path.absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise MigpoolError(f"{self.path} cannot be kept: {error.strerror or error}") from None
        self._kept = True
