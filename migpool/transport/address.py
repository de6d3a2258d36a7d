"""Where a migration goes: ``tcp:HOST:PORT`` or ``unix:PATH``, as QEMU writes them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from migpool.errors import UsageError


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen or to connect.

    Arguments:
        host: a host name or address for TCP; empty for a UNIX socket.
        port: the TCP port; 0 lets the system choose when listening.
        path: the UNIX socket's path; empty for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``tcp:HOST:PORT`` (``tcp:[::1]:PORT`` for IPv6) or ``unix:PATH``.

        Raises:
            UsageError: the text is neither.
        """
        scheme, _, rest = text.partition(":")
        if scheme == "unix" and rest:
            if len(os.fsencode(rest)) > 107:
                raise UsageError(f"the UNIX socket path {rest} is longer than 107 bytes: choose a shorter one")
            return cls(path=rest)
        host, _, port = rest.rpartition(":")
        if scheme == "tcp" and host and port.isdecimal() and int(port) < 65536:
            return cls(host=host.strip("[]"), port=int(port))
        raise UsageError(f"{text!r} is no address: write tcp:HOST:PORT or unix:PATH")

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        """The socket family."""
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def name(self) -> str | tuple[str, int]:
        """What ``bind`` and ``connect`` take."""
        return self.path or (self.host, self.port)

    def unlink(self) -> None:
        """Remove the UNIX socket's file, if there is one."""
        if self.path:
            Path(self.path).unlink(missing_ok=True)
