"""Delay, jitter and loss between two interfaces, for kernels without netem.

A packet is due when the kernel had it plus its delay, not when it was read here: what reading costs comes off the delay
as long as there is one. What is left is measured (:class:`RelayCost`): how late packets went on, and the CPU's time.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from migpool.lab.run.link.use import RelayCost
from migpool.units import MIB

_ALL_PROTOCOLS: Final = 3
_PACKET: Final = 263
"""The level of a packet socket's options, and three of them, as linux/if_packet.h numbers them."""
_STATISTICS, _OFFLOAD_HEADER, _IGNORE_OUTGOING = 6, 15, 23
_FORCED_BUFFER: Final = 33
_TIMESTAMPS: Final = 35
_STAMP: Final = struct.Struct("qq")
_LONGEST: Final = 1 << 17
_BUFFER: Final = 32 * MIB
_HELD: Final = 256 * MIB
"""Bytes that are under way at most; what comes then is lost."""
_BATCH: Final = 32
"""Packets that are read from one side before the other one's turn."""
_KEPT: Final = 100_000
"""Delays of so many packets are remembered."""


class Relay:
    """Moves packets between two interfaces, each way alike.

    Packets may pass each other where there is jitter, as with netem. Large ones that the kernel has yet to divide stay
    whole.

    Arguments:
        interfaces: two names, in the calling thread's network namespace.
        delay, jitter: seconds; a packet's delay is drawn evenly from within ``jitter`` of ``delay``.
        loss: of each packet, a probability.
        seed: of the draws.
    """

    def __init__(self, interfaces: Sequence[str], *, delay: float, jitter: float, loss: float, seed: int) -> None:
        self._delay, self._jitter, self._loss = round(delay * 1e9), round(jitter * 1e9), loss
        self._draw = random.Random(seed)
        self.sockets = [_opened(name) for name in interfaces]
        self._to = dict(zip(self.sockets, reversed(self.sockets), strict=True))
        self._waiting: list[tuple[int, int, socket.socket, bytes]] = []
        self._number = self._held = self._lost = self._overrun = 0
        self._late: list[int] = []
        self._began = time.process_time()
        with suppress(OSError):
            # A cable does not wait for a processor, and a sleep that lasts 50 us longer than asked is a delay too.
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            Path("/proc/self/timerslack_ns").write_text("1", "ascii")

    def due(self) -> float | None:
        """Seconds until the next packet must go; ``None`` without one."""
        return max(0.0, (self._waiting[0][0] - time.time_ns()) / 1e9) if self._waiting else None

    def step(self, ready: Sequence[socket.socket]) -> None:
        """Take what has come on these sockets, and let go what is due."""
        for sock in ready:
            self._take(sock)
        while self._waiting and (late := time.time_ns() - self._waiting[0][0]) >= 0:
            _, number, out, packet = heapq.heappop(self._waiting)
            self._held -= len(packet)
            try:
                out.send(packet)
            except OSError:
                self._overrun += 1  # the other side takes no more just now
            if number < _KEPT:
                self._late.append(late)

    def cost(self) -> RelayCost:
        """What it did, and what that cost."""
        missed = sum(struct.unpack("II", sock.getsockopt(_PACKET, _STATISTICS, 8))[1] for sock in self.sockets)
        late = sorted(self._late) or [0]
        return RelayCost(
            packets=self._number,
            lost=self._lost,
            overrun=self._overrun + missed,
            late_ms=late[len(late) // 2] / 1e6,
            late_99_ms=late[len(late) * 99 // 100] / 1e6,
            cpu_ms=(time.process_time() - self._began) * 1e3,
        )

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()

    def _take(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                packet, told, _, _ = sock.recvmsg(_LONGEST, 64)
            except BlockingIOError:
                return
            if self._loss and self._draw.random() < self._loss:
                self._lost += 1
                continue
            if self._held + len(packet) > _HELD:
                self._overrun += 1
                continue
            seconds, nanoseconds = _STAMP.unpack_from(told[0][2]) if told else divmod(time.time_ns(), 10**9)
            delay = self._delay
            if self._jitter:
                delay += round(self._draw.uniform(-self._jitter, self._jitter))
            due = seconds * 10**9 + nanoseconds + delay
            heapq.heappush(self._waiting, (due, self._number, self._to[sock], packet))
            self._number += 1
            self._held += len(packet)


def _opened(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    # Before it is bound: nothing of another interface may come.
    sock.setsockopt(_PACKET, _OFFLOAD_HEADER, 1)
    sock.setsockopt(_PACKET, _IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, _FORCED_BUFFER, _BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
    sock.setblocking(False)
    sock.bind((interface, _ALL_PROTOCOLS))
    return sock


def waited(control: socket.socket, relay: Relay | None, limit: float) -> list[socket.socket]:
    """Wait until something comes or is due, ``limit`` seconds at most; returns which sockets have something."""
    due = relay.due() if relay else None
    sockets = [control, *(relay.sockets if relay else ())]
    return select.select(sockets, (), (), limit if due is None else min(due, limit))[0]
