"""Recordings made by hand: of connections with chosen bytes at chosen times."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from migpool.streams.record.index import Connection, Ended, Flow, Index, Moment, Role, Side, flow_name, store
from migpool.wire.commands import open_return_path, ping, switchover_start
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.devicestate import DeviceStateHeader
from migpool.wire.multifd import initial_packet
from migpool.wire.ram import RamBlock, block_list, multifd_flush, ram_section_end
from migpool.wire.ramheader import RamPacketHeader, ram_header, sync_header
from migpool.wire.sections import Kind, SectionHead, head_bytes
from migpool.wire.stream import eof, header, vm_description

MS = 10**6
PAGE = 4096
Timed = Sequence[tuple[int, bytes]]
"""Bytes, and the millisecond in which they passed."""


@dataclass
class Made:
    """One connection: what passed in both directions."""

    part: Role
    channel: int | None
    source: Timed
    destination: Timed = field(default=())


def recording(directory: Path, made: Sequence[Made], *, complete: bool = True, reason: str = "") -> Path:
    """Write a recording that began at millisecond 1000."""
    directory.mkdir()
    zero = 1000 * MS
    connections = []
    for number, one in enumerate(made):
        flows = []
        sides: tuple[tuple[Side, Timed], ...] = (("source", one.source), ("destination", one.destination))
        for side, timed in sides:
            data = b"".join(piece for _, piece in timed)
            if not data:
                flows.append(Flow(0, 0, Ended.CLOSED))
                continue
            name, times = flow_name(number, side, "bytes"), flow_name(number, side, "times")
            (directory / name).write_bytes(data)
            at = 0
            stamps = b""
            for when, piece in timed:
                at += len(piece)
                stamps += struct.pack("<QQ", zero + when * MS, at)
            (directory / times).write_bytes(stamps)
            flows.append(Flow(at, at, Ended.CLOSED, name, times))
        uuid = "" if one.channel is None else "00" * 16
        connections.append(Connection(number, one.part, one.channel, uuid, zero, zero + 1000 * MS, *flows))
    begin, end = Moment(zero, "2026-01-01T00:00:00+00:00"), Moment(zero + 1000 * MS, "2026-01-01T00:00:01+00:00")
    store(directory, Index("unix:near", "unix:far", begin, end, complete, reason, tuple(connections)))
    return directory


def begin(machine: str = "made", *, answers: bool = False) -> bytes:
    """The beginning of a main channel of QEMU's kind: up to RAM's START section and its FLUSH."""
    commands = open_return_path() + ping(1) if answers else b""
    head = head_bytes(SectionHead(Kind.START, 2, "ram", 0, 4))
    blocks = block_list([RamBlock("pc.ram", 64 * PAGE)])
    return (
        header()
        + configuration(Configuration(machine))
        + commands
        + head
        + blocks
        + multifd_flush()
        + ram_section_end(2)
    )


def ram_end() -> bytes:
    """RAM's END section, with a FLUSH."""
    return head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)) + multifd_flush() + ram_section_end(2)


def end() -> bytes:
    """The end of a main channel."""
    return eof() + b"".join(map(bytes, vm_description(b"")))


def first(channel: int) -> bytes:
    """A multifd channel's first packet."""
    return initial_packet(channel)


def ram(number: int, pages: int, zero: int = 0) -> bytes:
    """A RAM packet."""
    normal = tuple(PAGE * page for page in range(pages))
    zeros = tuple(PAGE * page for page in range(pages, pages + zero))
    return ram_header(RamPacketHeader(0, number, "pc.ram", normal, zeros, PAGE * pages)) + bytes(PAGE * pages)


def sync(number: int) -> bytes:
    """A SYNC packet."""
    return sync_header(number)


def state(device: str, index: int, size: int) -> bytes:
    """A packet of device state."""
    head = DeviceStateHeader(device)
    head.pack(index, size)
    return bytes(head.buffer) + bytes(size)


__all__ = [
    "MS",
    "PAGE",
    "Made",
    "Role",
    "begin",
    "end",
    "first",
    "ram",
    "ram_end",
    "recording",
    "state",
    "switchover_start",
    "sync",
]
