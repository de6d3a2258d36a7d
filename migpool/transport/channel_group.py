"""The group of multifd channels at the source: any thread sends on whichever channel is idle.

Guarantees:

1. One packet at a time on a channel; a packet goes out whole, header and payload in one call.
2. No payload is queued, and there are no sender threads: the thread that has a chunk sends it.
3. Who waits for a channel is woken when one becomes idle, first come, first served; but a thread that runs already may
   take it first, above all the one that has just put it back. To hand it over instead would cost a change of threads
   for each chunk. ``close`` ends every wait.
4. The numbers of RAM packets are unique over all channels and rise on each: a packet gets its number once it has its
   channel. Packets that go together have numbers in a row.
5. While there are as many devices being sent as channels, or more, a device's chunks go over one channel as long as it
   is idle: so they come in order. With fewer, they take turns on all channels.
6. A SYNC is behind everything that was sent on its channel before ``sync`` was called.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from threading import Condition, Lock
from time import monotonic_ns
from typing import TYPE_CHECKING, TypeAlias

from migpool.core.cancel import CancelSwitch
from migpool.errors import PeerError
from migpool.transport.rate_limit import RateLimit
from migpool.transport.sockets import not_sent, send_all, send_rest, shut
from migpool.wire.ramheader import sync_header

if TYPE_CHECKING:
    from migpool.wire.rampacket import PagePacket, RamPacketWriter

Waited: TypeAlias = Callable[[str, int, int], None]
"""Hears of a wait for an idle channel when it is over: whose packet waited, its index, and since when, in nanoseconds
of the monotonic clock."""


class ChannelGroup:
    """Idle channels, for the taking. Who sends names the device, for the order of its chunks and for errors.

    Arguments:
        channels: connected and greeted, in the order of their numbers.
        waited: called after each wait for an idle channel, on the thread that waited.
        switch: closes the group when it is thrown.
        rate_limit: holds RAM packets back while the machine runs; ``None`` lets them go as fast as they can.
    """

    def __init__(
        self,
        channels: Sequence[socket.socket],
        waited: Waited,
        switch: CancelSwitch,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._channels = list(channels)
        self._count = len(channels)
        self._waited = waited
        self._switch = switch
        # Only who finds none, or knows of one who waits, locks. Atomic, also without the interpreter lock: list.pop,
        # list.remove and list.append.
        self._idle = list(channels)
        self._given_back = Condition(Lock())
        self._waiting = 0
        self._closed = False
        # Which channel each device that is being sent had last. Atomic: each dict.get, store and pop by itself.
        self._last: dict[str, socket.socket] = {}
        self._number = 0
        self._numbering = Lock()
        self._rate_limit = rate_limit
        switch.on_cancel(self.abort)

    def __len__(self) -> int:
        return len(self._channels)

    def send(
        self,
        name: str,
        index: int,
        buffers: Sequence[bytes | bytearray | memoryview],
        size: int,
        pipe: int | None = None,
    ) -> None:
        """Send one packet on an idle channel.

        Arguments:
            name: the device's.
            index: the chunk's.
            buffers: the packet, or its header if the payload is in a pipe.
            size: of the packet, or of what is in the pipe, in bytes.
            pipe: the read end of one in which the payload waits; its pages move without a copy.

        Raises:
            TimeLimitExceeded: the destination takes nothing.
            PeerGone: the connection is gone.
        """
        # The data path: what could be a call of our own is written out.
        last = self._last
        favourite = last.get(name) if len(last) >= self._count else None
        try:
            channel = favourite or self._idle.pop(0)
            if favourite is not None:
                self._idle.remove(favourite)
        except (IndexError, ValueError):  # none is idle, or somebody else has it
            channel = self._take(name, index)
        last[name] = channel
        try:
            if pipe is not None:
                channel.sendmsg(buffers, (), socket.MSG_MORE)
                while size:
                    size -= os.splice(pipe, channel.fileno(), size)
            elif (sent := channel.sendmsg(buffers)) != size:
                send_rest(channel, buffers, sent, name)
        except OSError as error:
            raise not_sent(error, name) from None
        finally:
            self._idle.append(channel)
            # After the append, as who waits looks at the list after it has said so: one of the two sees the other.
            if self._waiting:
                self._wake_one()

    @property
    def paced(self) -> bool:
        """Whether RAM packets are held back now."""
        return self._rate_limit is not None and not self._rate_limit.lifted

    def send_pages(
        self, name: str, index: int, writers: Sequence[RamPacketWriter], packets: Sequence[PagePacket]
    ) -> int:
        """Send pages of the memory on an idle channel, straight from where the guest has them: all in one call.

        Arguments:
            writers: write the packets' headers, one each; the calling thread's own.
            packets: one after the other.

        Returns:
            The first packet's number; those of the others follow it.

        Raises:
            TimeLimitExceeded, PeerError: as for :meth:`send`.
        """
        if self._rate_limit is not None:
            self._rate_limit.wait(sum([packet.size for packet in packets]))
        channel = self._take(name, index)
        try:
            pieces: list[bytearray | memoryview] = []
            first = self._draw(len(packets))
            for place, packet in enumerate(packets):
                writer = writers[place]  # one too few must be an error, and no page left out
                writer.pack(first + place, packet.block, packet.normal, packet.zero, packet.size, packet.offsets)
                pieces.append(writer.buffer)
                pieces += packet.views
            send_all(channel, pieces, name)
        finally:
            self._give_back(channel)
        return first

    def sync(self, name: str, page_size: int) -> None:
        """Send a SYNC on every channel, each as soon as it is idle.

        A channel that has its SYNC is kept until all have theirs: the destination reads nothing more from it before.
        """
        taken: list[socket.socket] = []
        try:
            for _ in self._channels:
                taken.append(self._take(name, -1))
                send_all(taken[-1], [sync_header(self._draw(1), page_size)], name)
        finally:
            for channel in taken:
                self._give_back(channel)

    def _draw(self, numbers: int) -> int:
        """The first of so many numbers in a row that no other packet has."""
        with self._numbering:
            first = self._number
            self._number += numbers
        return first

    def done(self, name: str) -> None:
        """The device has sent its last chunk."""
        self._last.pop(name, None)

    def _take(self, name: str, index: int) -> socket.socket:
        try:
            return self._idle.pop(0)
        except IndexError:
            return self._wait_for_one(name, index)

    def _wait_for_one(self, name: str, index: int) -> socket.socket:
        begin = monotonic_ns()
        channel = None
        with self._given_back:
            # Said before the list is looked at again: whoever gives a channel back later will know of it.
            self._waiting += 1
            while channel is None and not self._closed:
                try:
                    channel = self._idle.pop(0)
                except IndexError:
                    self._given_back.wait()
            self._waiting -= 1
        self._waited(name, index, begin)
        if channel is None:
            self._switch.check()
            raise PeerError(f"{name}: the channels are closed")
        return channel

    def _give_back(self, channel: socket.socket) -> None:
        self._idle.append(channel)
        if self._waiting:
            self._wake_one()

    def _wake_one(self) -> None:
        with self._given_back:
            self._given_back.notify()

    def abort(self) -> None:
        """End every wait for a channel and on one."""
        # First who waits for a channel: else one could be given a channel that is shut already, and blame the peer.
        with self._given_back:
            self._closed = True
            self._given_back.notify_all()
        for channel in self._channels:
            shut(channel)

    def close(self) -> None:
        """Close the channels: the destination sees their end after the last byte."""
        for channel in self._channels:
            channel.close()
