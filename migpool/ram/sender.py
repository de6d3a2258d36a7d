"""The memory at the source: its sections on the main channel, and what the effects of its jobs mean.

::

    main channel                                        every multifd channel
      START ram: the list of blocks, FLUSH                SYNC
      PART ram: FLUSH                  each round         pages ..., SYNC
      END ram: FLUSH                   machine stopped    pages ..., SYNC

A FLUSH on the main channel says that every channel carries a SYNC. The destination lets no page of a later round
overtake one of an earlier round: it reads nothing behind a SYNC before all channels have theirs.

Without multifd channels the pages stand in PART sections of the main channel, one a packet, and no FLUSH is needed: a
page that is sent again stands there again, later.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import zip_longest
from struct import Struct

from migpool.core.effects import EndRound, LookForDirty, SendPages, TakePages
from migpool.core.interpreter import Handlers, Job, of
from migpool.core.jobs import save_pages
from migpool.core.machine import Slot
from migpool.device import MemoryDevice
from migpool.ram.dirty_pages import PACKETS_AT_ONCE, Pages
from migpool.transport.channel_group import ChannelGroup
from migpool.transport.main_channel import MainChannel
from migpool.wire.ram import RamBlock, block_list, multifd_flush, pages, ram_section_end
from migpool.wire.rampacket import PagePacket, RamPacketWriter
from migpool.wire.sections import Kind, head_bytes
from migpool.wire.unread import Buffer

_OFFSET = Struct(">Q")


class RamSender:
    """Sends a machine's memory.

    Arguments:
        slot: the memory's.
        device: the memory.
        group: the multifd channels; there may be none.
        main: the main channel.
        sent: called with the bytes of each packet's pages that went, from any thread.
        tracer: takes a span of each round's SYNCs.
    """

    def __init__(
        self,
        slot: Slot,
        device: MemoryDevice,
        group: ChannelGroup,
        main: MainChannel,
        sent: Callable[[int], None],
    ) -> None:
        self._slot = slot
        self._device = device
        self._group = group
        self._main = main
        self._sent = sent
        self._writers = threading.local()
        self._names = [block.name for block in device.blocks]
        self.pages = Pages(device)
        self.lanes = max(1, min(len(group), os.cpu_count() or 1))
        """How many jobs share a round: more than channels or processors would only wait for each other."""

    # ------------------------------------------------------------------ sections and rounds

    def begin(self) -> None:
        """Tell the destination of the blocks, and log from now on what is written."""
        blocks = [RamBlock(block.name, len(block.memory)) for block in self._device.blocks]
        self._section(Kind.START, block_list(blocks))
        of(self._slot, "start_dirty_log", self._device.start_dirty_log)

    def jobs(self) -> list[Job]:
        """Begin a round with every page that is to be sent; the jobs that carry it out."""
        # With a limit on the rate each packet goes by itself, or it would go in bursts.
        self.pages.begin_round(1 if self._group.paced else PACKETS_AT_ONCE)
        return [Job("pages", save_pages(self._slot), self._slot) for _ in range(self.lanes)]

    def end_round(self, *, last: bool) -> None:
        """All jobs of a round have ended: no page of the next one may overtake theirs."""
        if self._group or last:
            self._section(Kind.END if last else Kind.PART)

    def stop(self) -> None:
        """Log no more. Harmless at any time."""
        self._device.stop_dirty_log()

    def let_go(self) -> None:
        """Hold no view of the memory any more. Every job has ended."""
        self.pages.let_go()

    def _section(self, kind: Kind, payload: bytes = b"") -> None:
        self._group.sync(self._slot.name, self._device.page_size)
        self._write(kind, [payload, multifd_flush() if self._group else b""])

    def _write(self, kind: Kind, payload: Sequence[Buffer]) -> None:
        self._main.write([head_bytes(self._slot.head(kind)), *payload, ram_section_end(self._slot.number)])

    # ------------------------------------------------------------------ effects

    def handle(self, handlers: Handlers) -> None:
        """Say what the effects of the memory's jobs mean."""
        handlers.on(TakePages, self._take_pages)
        handlers.on(SendPages, self._send_pages if self._group else self._write_pages)
        handlers.on(LookForDirty, lambda _: self.pages.look())
        handlers.on(EndRound, lambda effect: self.end_round(last=effect.last))

    def _take_pages(self, effect: TakePages) -> list[PagePacket] | None:
        del effect
        return self.pages.take()

    def _send_pages(self, effect: SendPages) -> None:
        packets = effect.packets
        effect.index = self._group.send_pages(effect.slot.name, effect.index, self._own_writers(), packets)
        self._sent(sum([packet.size for packet in packets]))

    def _write_pages(self, effect: SendPages) -> None:
        size = self._device.page_size
        for packet in effect.packets:
            offsets = (number for (number,) in _OFFSET.iter_unpack(packet.offsets))
            contents = (view[at : at + size] for view in packet.views for at in range(0, len(view), size))
            # Pages with content come first; behind them the offsets of pages of zeros are left.
            self._write(Kind.PART, pages(self._names[packet.block], zip_longest(offsets, contents)))
            self._sent(packet.size)

    def _own_writers(self) -> list[RamPacketWriter]:
        """The calling thread's own."""
        try:
            writers: list[RamPacketWriter] = self._writers.writers
        except AttributeError:
            size = self._device.page_size
            writers = self._writers.writers = [RamPacketWriter(self._names, size) for _ in range(PACKETS_AT_ONCE)]
        return writers
