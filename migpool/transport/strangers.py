"""How many connections a port takes that may be anybody's, and which of too many gives way."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from typing import Final

MOST: Final = 384
"""How many connections may have begun as a source's do, and how many may not have said yet what they are: more than one
source opens, and both together fewer than a process may usually have."""


class Stranger(Exception):
    """A connection is none of the source's; the message says what it was."""


def address_of(sock: socket.socket) -> str:
    """Where a connection comes from: its host, or with IPv6 its network, in which a host has any address."""
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    if sock.family == socket.AF_INET6:
        found = ipaddress.IPv6Address(name[0].partition("%")[0])
        return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(name[0]) if sock.family == socket.AF_INET else ""


def one_of_most(addresses: dict[socket.socket, str]) -> socket.socket:
    """The oldest connection of the address that has most of them.

    Arguments:
        addresses: of each connection, the oldest first.
    """
    most = Counter(addresses.values()).most_common(1)[0][0]
    return next(sock for sock, address in addresses.items() if address == most)
