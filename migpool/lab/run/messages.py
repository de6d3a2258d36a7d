"""What the process that compares and the ones that migrate say to each other: a JSON object a line, over a socket pair.

::

    parent                                     child
      {"task": {...}}                  ->        what to do; see child.py
      {"address": "tcp:127.0.0.1:34567"} ->      to the source: where the destination listens
      {"cancel": true}                 ->        once
                                       <-        {"state": "setup"} ...
                                       <-        {"listening": "tcp:127.0.0.1:34567"}
                                       <-        {"bytes": 1048576}      a few times a second
                                       <-        {"warning": "..."}      what Python or a library warns of
                                       <-        {"result": {...}}       the side's result, and the end
                                       <-        {"error": "...", "usage": true}        there was no migration

Each end reads the other's death as the end of the connection.
"""

from __future__ import annotations

import json
import socket
from threading import Lock
from typing import Any

Message = dict[str, Any]
READ_SIZE = 1 << 18


class ControlChannel:
    """One end of the connection. ``sock``: a connected stream socket; owned from now on."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._kept = b""
        self._sending = Lock()

    def send(self, message: Message) -> bool:
        """Send a message, from any thread; returns whether somebody is still there to take it."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._sending:
                self.sock.sendall(data)
        except OSError:
            return False
        return True

    def receive(self) -> list[Message] | None:
        """The messages that one read brings, perhaps none yet; ``None`` at the end. Waits for the read."""
        try:
            data = self.sock.recv(READ_SIZE)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._kept = (self._kept + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self.sock.close()
