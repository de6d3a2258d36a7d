"""What the kernel says of a TCP connection (tcp(7), TCP_INFO; the layout is that of linux/tcp.h, which only grows)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

_SEGMENT: Final = struct.Struct("=16xI")
_RTT: Final = struct.Struct("=68xI8xI")
_RETRANSMITTED: Final = struct.Struct("=100xI")
_LEAST_RTT: Final = struct.Struct("=148xI")
_TIMES: Final = struct.Struct("=168xQQQ")
_BYTES: Final = struct.Struct("=200xQQ")
_WHOLE: Final = 216
"""Bytes of it that are read: what Linux has had since 4.19."""


@dataclass(frozen=True, slots=True)
class TcpUse:
    """How one end of a connection used it.

    Attributes:
        name: what it is to the migration.
        congestion: its congestion control.
        bytes: sent, with those that were sent anew.
        bytes_again: sent anew.
        packets_again: segments that were sent anew.
        rtt_ms, least_rtt_ms: the round trip, smoothed, and the least that was seen.
        window: the congestion window in bytes.
        busy_ms: how long there was something to send.
        peer_full_ms: how much of that it waited for room at the peer.
        own_full_ms: how much of that it waited for room in the send buffer.
    """

    name: str
    congestion: str
    bytes: int
    bytes_again: int
    packets_again: int
    rtt_ms: float
    least_rtt_ms: float
    window: int
    busy_ms: float
    peer_full_ms: float
    own_full_ms: float


def tcp_use(name: str, sock: socket.socket) -> TcpUse | None:
    """How a connection has been used so far; ``None`` if it is none of TCP, or the system does not tell."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WHOLE)
        congestion = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    except OSError:
        return None
    if len(told) < _WHOLE:
        return None
    rtt, window = _RTT.unpack_from(told)
    whole, again = _BYTES.unpack_from(told)
    busy, peer_full, own_full = _TIMES.unpack_from(told)
    return TcpUse(
        name,
        congestion.partition(b"\0")[0].decode("ascii", "replace"),
        whole,
        again,
        _RETRANSMITTED.unpack_from(told)[0],
        rtt / 1e3,
        _LEAST_RTT.unpack_from(told)[0] / 1e3,
        window * _SEGMENT.unpack_from(told)[0],
        busy / 1e3,
        peer_full / 1e3,
        own_full / 1e3,
    )
