"""How a source comes to the destination: who listens for it, who is turned away, and when nobody may come any more."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial

from migpool.core.cancel import CancelSwitch
from migpool.errors import MigpoolError, ProtocolError
from migpool.migration.return_path_writer import ReturnPathWriter
from migpool.migration.sections import MachineSchema
from migpool.migration.settings import Settings
from migpool.transport.accept import BACKLOG, Arrivals, accept_all
from migpool.transport.address import Address
from migpool.transport.connections import Connections
from migpool.transport.credentials import credentials
from migpool.transport.listener import listen
from migpool.transport.sockets import prepare, send_all
from migpool.wire.configuration import Configuration
from migpool.wire.returnpath import CREDITS_CAPABILITY
from migpool.wire.stream import EOF, StreamReader


class Incoming:
    """Listens for one source.

    Arguments:
        settings: the destination's.
        schema: knows the machine's sections.
        switch: ends the wait.
        listening: called with the address, once a source can connect.
    """

    def __init__(
        self,
        settings: Settings,
        schema: MachineSchema,
        switch: CancelSwitch,
        listening: Callable[[Address], None] | None,
    ) -> None:
        self._settings = settings
        self._schema = schema
        self._switch = switch
        self._listening = listening
        self._door = contextlib.ExitStack()
        self._arrivals: Arrivals | None = None

    def accept(self, address: Address, connections: Connections, stack: contextlib.ExitStack) -> None:
        """Wait until a source has opened all its connections.

        Arguments:
            address: where to listen.
            connections: takes them. After an error it may have a main channel, on which the source can be told.
            stack: closes them.

        Raises:
            MigpoolError: none has come in time, or one that cannot be taken.
        """
        settings = self._settings
        ours = credentials(settings.tls, "server")
        door = stack.enter_context(self._door)
        listener, bound = listen(address, BACKLOG, exposed=settings.insecure or ours is not None)
        door.enter_context(listener)
        door.callback(bound.unlink)
        if self._listening is not None:
            self._listening(bound)
        self._arrivals = accept_all(
            listener,
            connections,
            first_limit=settings.accept_limit,
            limit=settings.connect_limit,
            prepare=partial(prepare, limit=settings.peer_limit, tick=settings.tick, congestion=settings.congestion),
            check=self._switch.check,
            stack=stack,
            credentials=ours,
            anybody=settings.insecure,
            refuse=self._turn_away,
        )

    def close(self) -> None:
        """The source opened all its connections before it said what it says now: see whether there are too many.

        Raises:
            PeerError: there are.
        """
        with self._door.pop_all():
            if self._arrivals is not None:
                self._arrivals.take_pending()
                self._arrivals.close()

    def _turn_away(self, main: socket.socket, said: bytes, reason: MigpoolError) -> None:
        """Tell who may be a source why it is not taken, while others are waited for."""
        answers = ReturnPathWriter(partial(send_all, main, what="return path"))
        reader = StreamReader(self._schema)
        reader.feed(said + bytes([EOF]))  # where a configuration ends, only what follows it says
        with contextlib.suppress(ProtocolError):
            for item in reader.events():
                if isinstance(item, Configuration):
                    answers.extended = CREDITS_CAPABILITY in (item.capabilities or ())
        answers.fail(reason)
