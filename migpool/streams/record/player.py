"""How the bytes of one recorded connection are sent: in the recorded order, or as the destination grants them.

A channel waits for the main channel where the recorded source could not have been ahead of it: RAM comes after the list
of its blocks, device state after SWITCHOVER_START. A QEMU that is given state of a device of which it has not heard yet
aborts. The recorded source was slower than a replay: where no SYNC tells that the device's START section has been read,
a PING does. Nothing else ties channels together but what the destination itself does with SYNC, so there is no order in
which two of them can wait for each other.

A source that knows credits sends a chunk only when the destination has granted it, and the destination of a replay
grants in an order of its own. So there each packet waits for its own grant, and packets of other devices on the same
channel may pass it; those of one device never change their order. The next chunk of each device is at the front of its
row on some channel, and a destination always has room for that one: no wait is for ever.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from migpool.errors import PeerError, TimeLimitExceeded
from migpool.streams.record.channels import DeviceKey, Packet, packets
from migpool.streams.record.index import Connection, Times
from migpool.streams.record.playable import ChannelPlan, Playable
from migpool.streams.record.stage import HEARD, Stage
from migpool.wire.commands import ping

_PIECE: Final = 1 << 20


class ClosedEarly(PeerError):
    """The destination closed a connection before everything had been sent on it."""


class Player:
    """Sends one connection's bytes.

    Arguments:
        recording: what is played.
        connection: which of its connections.
        sock: connected to the destination.
        stage: what the threads know of each other.
        begin: when the replay began, CLOCK_MONOTONIC in nanoseconds; ``None`` to send at full speed.

    Attributes:
        sent: how many bytes have been sent so far.
    """

    def __init__(
        self, recording: Playable, connection: Connection, sock: socket.socket, stage: Stage, begin: int | None
    ) -> None:
        self._recording = recording
        self.connection = connection
        self.sock = sock
        self._stage = stage
        self._shift = None if begin is None else begin - recording.index.connections[0].begin
        self._path: Path = recording.directory / connection.source.file
        self._times = Times(recording.directory / connection.source.times)
        self._stamps = self._times.pairs()
        self._due = (0, 0)
        self.sent = 0

    @property
    def total(self) -> int:
        """How many bytes there are to send."""
        return self.connection.source.bytes

    def greet(self, size: int) -> None:
        """Send the first ``size`` bytes, by which the destination sees what the connection is."""
        if size:
            with self._path.open("rb", buffering=0) as file:
                self._send(file.fileno(), 0, min(size, self.total))

    def play_main(self) -> None:
        """Send the rest of a main channel."""
        summary = self._recording.summary
        switchover = summary.switchover
        with self._path.open("rb", buffering=0) as file:
            if switchover is not None:
                self._send_timed(file.fileno(), self.sent, switchover, main=True)
                if self._recording.acknowledged:
                    self._stage.wait_for_acknowledgement()
                if self._recording.answered and summary.unheard and not summary.credited:
                    self._be_heard()
            self._send_timed(file.fileno(), self.sent, self.total, main=True)

    def _be_heard(self) -> None:
        try:
            self.sock.sendall(ping(HEARD))
        except OSError:
            raise self.closed_early() from None
        self._stage.wait_to_be_heard()

    def play_preempt(self) -> None:
        """Send all of a preempt channel. What comes too early waits at the destination until it runs."""
        if self.total:
            with self._path.open("rb", buffering=0) as file:
                self._send_timed(file.fileno(), self.sent, self.total)

    def play_channel(self, plan: ChannelPlan) -> None:
        """Send the rest of a multifd channel in the recorded order."""
        summary = self._recording.summary
        with self._path.open("rb", buffering=0) as file:
            if self.sent < self.total:
                self._stage.wait_for_main(summary.blocks_end)
            if plan.first_device is not None:
                self._send_timed(file.fileno(), self.sent, plan.first_device)
                self._stage.wait_for_main(summary.switchover_end)
            self._send_timed(file.fileno(), self.sent, self.total)

    def play_granted(self, plan: ChannelPlan) -> None:
        """Send the rest of a multifd channel as it is granted."""
        if self.sent < self.total:
            self._stage.wait_for_main(self._recording.summary.switchover_end)
        # A row a device and one for all that needs no grant; each reads the headers for itself: so no list of packets
        # is held, however many there are.
        rows = {device: self._packets_of(device) for device in (None, *sorted(plan.devices))}
        heads = {device: packet for device, row in rows.items() if (packet := next(row, None)) is not None}
        with self._path.open("rb", buffering=0) as file:
            while heads:
                ready = [packet for packet in heads.values() if self._may_go(packet)]
                if not ready:
                    self._stage.wait_for_grant([(device, one.index) for device, one in heads.items() if device])
                    continue
                packet = min(ready, key=lambda one: one.offset)
                self._pace(packet.offset)
                self._send(file.fileno(), packet.offset, packet.end)
                following = next(rows[packet.device], None)
                if following is None:
                    del heads[packet.device]
                else:
                    heads[packet.device] = following

    def _may_go(self, packet: Packet) -> bool:
        return packet.device is None or self._stage.granted(packet.device, packet.index)

    def _packets_of(self, device: DeviceKey | None) -> Iterator[Packet]:
        every = packets(self._path, self._recording.summary.page_size)
        return (packet for packet in every if packet.device == device)

    # ------------------------------------------------------------------ bytes

    def _pace(self, offset: int) -> None:
        if self._shift is not None and (when := self._times.when(offset)) is not None:
            self._stage.pause(when + self._shift)

    def _send_timed(self, descriptor: int, begin: int, end: int, *, main: bool = False) -> None:
        if self._shift is None:
            self._send(descriptor, begin, end, main=main)
            return
        while begin < end:
            while self._due[1] <= begin and (stamp := next(self._stamps, None)) is not None:
                self._due = stamp
            upto = min(end, self._due[1]) if self._due[1] > begin else end
            self._stage.pause(self._due[0] + self._shift)
            self._send(descriptor, begin, upto, main=main)
            begin = upto

    def _send(self, descriptor: int, begin: int, end: int, *, main: bool = False) -> None:
        while begin < end:
            if self._stage.error is not None:
                raise self._stage.error
            try:
                count = os.sendfile(self.sock.fileno(), descriptor, begin, min(_PIECE, end - begin))
            except BlockingIOError:
                raise TimeLimitExceeded(
                    f"{self.connection.name}: the destination has taken nothing within the time limit, after byte "
                    f"{self.sent} of {self.total}"
                ) from None
            except OSError:
                raise self.closed_early() from None
            begin += count
            self.sent += count
            self._stage.sent(begin if main else 0)

    def closed_early(self) -> ClosedEarly:
        """The error of a destination that closed this connection."""
        return ClosedEarly(
            f"the destination closed the {self.connection.name} early, after byte {self.sent} of {self.total}"
        )
