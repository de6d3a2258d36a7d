"""The connections to a destination: sends that can be cancelled, and what the destination answers."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from migpool.errors import Cancelled, PeerError, PeerGone, TimeLimitExceeded
from migpool.transport.accept import TICK
from migpool.transport.address import Address
from migpool.transport.connections import took
from migpool.transport.credentials import Credentials
from migpool.transport.listener import check_process
from migpool.transport.sockets import MOST_BUFFERS, behind, connect
from migpool.transport.tls import look
from migpool.wire.multifd import initial_packet
from migpool.wire.returnpath import ReturnPathReader, Shut
from migpool.wire.unread import Buffer

_PIECE: Final = 1 << 17


class Peer:
    """A destination that has been connected to.

    Arguments:
        address: where it listens.
        channels: how many multifd channels to open.
        uuid: what to say on each of them.
        limit: how long it may take nothing, or say nothing, in seconds.
        cancelled: called several times a second.
        stack: closes the connections.
        credentials: this end's, if the connections are to be encrypted.
        anybody: take whatever process listens on a UNIX socket.

    Raises:
        PeerError: nobody listens there.
        UsageError: there is no such address.
    """

    def __init__(
        self,
        address: Address,
        channels: int,
        uuid: bytes,
        *,
        limit: float,
        cancelled: Callable[[], bool],
        stack: contextlib.ExitStack,
        credentials: Credentials | None = None,
        anybody: bool = False,
    ) -> None:
        self._limit = limit
        self._credentials = credentials
        self._anybody = anybody
        self._cancelled = cancelled
        self._answers = ReturnPathReader()
        self._shut: Shut | None = None
        deadline = time.monotonic() + limit
        self._opened: list[socket.socket] = []
        self._main = self._open(address, deadline, stack)
        self._channels: list[socket.socket] = []
        for number in range(channels):
            taken = f"{took(number, channels)}; give --channels as it has"
            self._channels.append(self._open(address, deadline, stack, taken))
            # At once: a QEMU waits for it, and meanwhile takes part in no other channel's handshake.
            self.send_channel(number, [initial_packet(number, uuid)])

    def _open(self, address: Address, deadline: float, stack: contextlib.ExitStack, taken: str = "") -> socket.socket:
        sock = stack.enter_context(connect(address, deadline, self._limit, self._check, taken=taken))
        if not self._anybody:
            check_process(sock, f"who listens on {address}")
        if self._credentials is not None:
            made = self._credentials.connected(sock, address, deadline, self._limit, self._check)
            sock = stack.enter_context(made)
        self._opened.append(sock)
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _check(self) -> None:
        """While the connections are opened: whether to give up, or the destination has."""
        if self._cancelled():
            raise Cancelled("cancelled before the destination had anything of the machine")
        # One that refuses this end says so on the first connection, and then listens no more.
        for sock in self._opened[:1]:
            look(sock)

    def send_main(self, buffers: Sequence[Buffer]) -> None:
        """Send on the main channel.

        Raises:
            PeerError: the destination has closed it, or said that it has failed.
            TimeLimitExceeded: it takes nothing.
            Cancelled: somebody wished so.
        """
        self._send(self._main, buffers, "the main channel")

    def send_channel(self, number: int, buffers: Sequence[Buffer]) -> None:
        """Send on a multifd channel; raises as :meth:`send_main`."""
        self._send(self._channels[number], buffers, f"multifd channel {number}")

    def wait_for_shut(self) -> None:
        """Wait until the destination says that the machine runs there.

        Raises:
            PeerError: it says that it has failed, or closes the connection without a word.
            TimeLimitExceeded: it says nothing.
        """
        deadline = time.monotonic() + self._limit
        while self._shut is None:
            if not self._wait_for(self._main, reading=True, deadline=deadline):
                raise TimeLimitExceeded(
                    f"the destination has everything and has not said within {self._limit:g} s that the machine runs: "
                    "it may wait for more channels; give --channels as it has"
                )
            if not self._hear():
                raise PeerError("the destination closed the connection without saying that the machine runs: see there")
        if self._shut.error:
            raise PeerError(f"the destination says that it has failed (error {self._shut.error}): see there")

    def wait_for_close(self) -> None:
        """End the connections, and wait until the destination has closed them too, or the time limit.

        Raises:
            PeerError: it has not read all of a multifd channel. So a connection ends that was never taken: QEMU refuses
                more channels than it was told of, but it may do so when it has loaded the machine without their pages.
        """
        deadline = time.monotonic() + self._limit
        for sock in (self._main, *self._channels):
            self._wait_for(sock, reading=False, deadline=deadline)  # with TLS an end is a message, and needs room
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        while self._wait_for(self._main, reading=True, deadline=deadline) and self._hear():
            pass
        for number, channel in enumerate(self._channels):
            if self._wait_for(channel, reading=True, deadline=deadline):
                try:
                    channel.recv(_PIECE)
                except PeerGone:
                    continue  # it has closed, only not as TLS wants it
                except OSError:
                    raise PeerError(
                        f"the destination has not read all of multifd channel {number}, and so lacks pages of the "
                        "machine: end the machine there, and give --channels as it has"
                    ) from None

    def _send(self, sock: socket.socket, buffers: Sequence[Buffer], what: str) -> None:
        waiting = [memoryview(buffer) for buffer in buffers if len(buffer)]
        deadline = time.monotonic() + self._limit
        while waiting:
            try:
                sent = sock.sendmsg(waiting[:MOST_BUFFERS])
            except BlockingIOError:
                if not self._wait_for(sock, reading=False, deadline=deadline):
                    raise TimeLimitExceeded(
                        f"the destination has taken nothing for {self._limit:g} s: "
                        "it may wait for more channels; give --channels as it has"
                    ) from None
                continue
            except OSError as error:
                raise self._why_it_broke(what, error) from None
            deadline = time.monotonic() + self._limit
            waiting = behind(waiting, sent)

    def _wait_for(self, sock: socket.socket, *, reading: bool, deadline: float) -> bool:
        """Wait until a connection can be read or written; False at the deadline."""
        while time.monotonic() < deadline:
            if self._cancelled():
                raise Cancelled("cancelled: the destination has not all of the machine, and the file is as it was")
            if any(select.select([sock] if reading else [], [] if reading else [sock], [], TICK)):
                return True
        return False

    def _hear(self) -> bool:
        """Take what the destination says; False at the end of the connection."""
        try:
            data = self._main.recv(_PIECE)
        except BlockingIOError:
            return True
        except (OSError, PeerGone):
            return False
        self._answers.feed(data)
        for message in self._answers.events():
            self._shut = message if isinstance(message, Shut) else self._shut
        return bool(data)

    def _why_it_broke(self, what: str, error: OSError) -> PeerError:
        with contextlib.suppress(OSError):
            while any(select.select([self._main], [], [], 0)) and self._hear():
                pass
        if self._shut is not None and self._shut.error:
            return PeerError(f"the destination says that it has failed (error {self._shut.error}): see there")
        return PeerError(
            f"the destination closed {what} ({error.strerror or error}): see there why; "
            f"it takes as many multifd channels as were set there, and here --channels says {len(self._channels)}"
        )
