"""A source as a QEMU is, made by hand: no credits, and device state from threads of its own beside pages and SYNCs.

What it says on each connection is said at once. A thread listens to what it is answered.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import random
import socket
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from migpool.transport.address import Address
from migpool.wire.commands import open_return_path, ping, switchover_start
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.devicestate import DeviceStateHeader
from migpool.wire.multifd import SYNC, initial_packet
from migpool.wire.ram import RamBlock, block_list, multifd_flush, ram_section_end
from migpool.wire.ramheader import RamPacketHeader, ram_header, sync_header
from migpool.wire.records import config_record, data_record, end_payload, frame_config, initial_data_sent, setup_payload
from migpool.wire.returnpath import Message, Pong, ReturnPathReader, Shut
from migpool.wire.sections import Kind, SectionHead, head_bytes, section, section_end, section_part
from migpool.wire.stream import eof, header, vm_description
from tests.support.paper import PAGE, Paper

LIMIT = 60.0
RAM = 2
FIRST = 10
"""The section of the first device."""


def wait_until_read(sock: socket.socket) -> None:
    """Return when the peer has read all that was sent, or has gone."""
    unread = array.array("i", [1])
    deadline = time.monotonic() + LIMIT
    while unread[0]:
        assert time.monotonic() < deadline, f"{unread[0]} bytes are not read"
        time.sleep(0.001)
        fcntl.ioctl(sock, termios.TIOCOUTQ, unread)


def joined(buffers: Sequence[object]) -> bytes:
    return b"".join(map(bytes, buffers))  # type: ignore[arg-type]


def packet(name: str, index: int, data: bytes, *, config: bool = False) -> bytes:
    """A packet of device state."""
    data = joined(frame_config(data)) if config else data
    head = DeviceStateHeader(name)
    head.pack(index, len(data), config)
    return bytes(head.buffer) + data


def pages_of(paper: Paper, number: int, pages: Sequence[int], *, sync: bool = False) -> bytes:
    """A packet of RAM pages; a SYNC rides on it where QEMU 7.2 was the source."""
    (block,) = paper.blocks
    where = tuple(PAGE * page for page in pages)
    data = b"".join(bytes(block.memory[at : at + PAGE]) for at in where)
    return ram_header(RamPacketHeader(SYNC if sync else 0, number, block.name, where, (), len(data))) + data


@dataclass
class Stream:
    """What a QEMU says of a machine.

    Arguments:
        states: of each VFIO device, in chunks.
        configs: of each, too.
        paper: the memory.
        plain: the configs of what else there is, by name.
        machine: its type. Those up to 8.0 say no FLUSH: the end of each section of RAM is one.
    """

    states: Mapping[str, Sequence[bytes]]
    configs: Mapping[str, bytes]
    paper: Paper
    plain: Mapping[str, bytes] = field(default_factory=dict)
    machine: str = "machine"

    def opening(self, capabilities: tuple[str, ...] = ()) -> bytes:
        """What the main channel begins with."""
        return header() + configuration(Configuration(self.machine, capabilities=capabilities or None))

    def starts(self) -> list[bytes]:
        """The return path, and the START sections."""
        (block,) = self.paper.blocks
        blocks = block_list([RamBlock(block.name, len(block.memory))])
        ram = head_bytes(SectionHead(Kind.START, RAM, "ram", 0, 4)) + blocks + self._flush + ram_section_end(RAM)
        devices = [section(self._head(Kind.START, number), setup_payload()) for number in range(len(self.states))]
        return [open_return_path() + ping(1), ram, *map(joined, devices)]

    def begin(self) -> bytes:
        """Up to the beginning of each device."""
        return b"".join([self.opening(), *self.starts()])

    def _head(self, kind: Kind, number: int) -> SectionHead:
        return SectionHead(kind, FIRST + number, list(self.states)[number], 0, 1)

    @property
    def _flush(self) -> bytes:
        return b"" if Configuration(self.machine).flushes_each_section else multifd_flush()

    def flush(self, *, last: bool, count: int = 1) -> bytes:
        """A section of RAM that has but FLUSHes; where it is a FLUSH itself, as many of them."""
        kind = Kind.END if last else Kind.PART
        kinds = [kind] if self._flush else [*[Kind.PART] * (count - 1), kind]
        end = self._flush * count + ram_section_end(RAM)
        return b"".join(head_bytes(SectionHead(kind, RAM, "ram", 0, 4)) + end for kind in kinds)

    def gives(self, number: int, data: bytes) -> bytes:
        """What a device gives while the machine runs."""
        return joined(section_part(FIRST + number, [*data_record(data), end_payload()]))

    def initial(self, number: int, data: bytes) -> bytes:
        """A device's initial data, and that this was all of it."""
        return joined(section_part(FIRST + number, [*data_record(data), initial_data_sent()]))

    def ends(self, *, transfer: bool = True) -> list[bytes]:
        """The END section of each VFIO device, with its state if that does not cross over the multifd channels."""
        held = [
            () if transfer else [piece for one in chunks for piece in data_record(one)]
            for chunks in self.states.values()
        ]
        return [joined(section_end(FIRST + number, [*one, end_payload()])) for number, one in enumerate(held)]

    def fulls(self, *, transfer: bool = True) -> list[bytes]:
        """The FULL section of each device; that of a VFIO one with its config, if that does not cross elsewhere."""
        held = [() if transfer else config_record(self.configs[name]) for name in self.states]
        said = [section(self._head(Kind.FULL, number), [*one, end_payload()]) for number, one in enumerate(held)]
        for number, (name, config) in enumerate(self.plain.items(), FIRST + len(self.states)):
            said.append(section(SectionHead(Kind.FULL, number, name, 0, 1), config))
        return [joined(one) for one in said]

    @staticmethod
    def end() -> bytes:
        """The end of the main channel."""
        return eof() + joined(vm_description(b"{}"))

    def rest(self, *, transfer: bool = True) -> bytes:
        """From the end of RAM on.

        Arguments:
            transfer: whether the VFIO devices' states cross over the multifd channels, or else here.
        """
        return b"".join([*self.ends(transfer=transfer), *self.fulls(transfer=transfer), self.end()])

    def switchover(self, seed: int, channels: int) -> list[bytes]:
        """What the channels carry behind the switchover: two rounds of the memory, and chunks anywhere among them.

        The chunks come from threads of their own: so each is on any channel, before, between and behind the SYNCs.
        """
        order = random.Random(seed)
        number = iter(range(100, 10_000))
        lines: list[list[bytes]] = [[] for _ in range(channels)]
        all_pages = list(range(len(self.paper.blocks[0].memory) // PAGE))
        half = len(all_pages) // 2
        for some in (all_pages[:half], all_pages[half:]):
            for channel, line in enumerate(lines):
                if mine := some[channel::channels]:
                    line.append(pages_of(self.paper, next(number), mine))
                line.append(sync_header(next(number)))
        for name, chunks in self.states.items():
            packets = [packet(name, index, chunk) for index, chunk in enumerate(chunks)]
            packets.append(packet(name, len(chunks), self.configs[name], config=True))
            for one in packets:
                line = order.choice(lines)
                # Late more often than early: that is where somebody may wait for it in vain.
                line.insert(order.choice([order.randint(0, len(line)), len(line)]), one)
        return [b"".join(line) for line in lines]


class QemuSource:
    """Connections to a destination; a context that ends them."""

    def __init__(self, address: Address, channels: int) -> None:
        self._open = contextlib.ExitStack()
        self.main = self._connect(address)
        self.channels = [self._connect(address) for _ in range(channels)]
        self._news = threading.Condition()
        self._heard: list[Message] = []
        self._over = False
        self._pings = 1
        self._listener = threading.Thread(target=self._listen, name="heard")

    def _connect(self, address: Address) -> socket.socket:
        sock = self._open.enter_context(socket.socket(address.family))
        sock.settimeout(LIMIT)
        sock.connect(address.name)
        return sock

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for sock in (*self.channels, self.main):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.join(LIMIT)
        self._open.close()

    def greet(self, begin: bytes) -> None:
        """Say the beginning, on every connection; of RAM the first SYNC belongs to it."""
        self.main.sendall(begin)
        for number, sock in enumerate(self.channels):
            sock.sendall(initial_packet(number) + sync_header(number))

    def switch_over(self, main: bytes, channels: Sequence[bytes]) -> None:
        """Say the rest."""
        self.main.sendall(switchover_start())
        for sock, said in zip(self.channels, channels, strict=True):
            sock.sendall(said)
        self.main.sendall(main)

    def say(self, said: Sequence[tuple[int, bytes]], *, ends: bool = True) -> None:
        """Say this in turns, on the main channel (0) or another; whoever has gone hears nothing.

        Arguments:
            ends: say that this was all.
        """
        lines = [self.main, *self.channels]
        for line, what in said:
            with contextlib.suppress(OSError):
                lines[line].sendall(what)
        for sock in (*self.channels, self.main) if ends else ():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)

    def asked(self) -> list[Message]:
        """What has been answered to all that was said on the main channel: a PING says how far that is."""
        self._pings += 1
        self.main.sendall(ping(self._pings))
        with self._news:
            mine = lambda one: isinstance(one, Pong) and one.value == self._pings  # noqa: E731
            assert self._news.wait_for(lambda: self._over or any(map(mine, self._heard)), LIMIT), self._heard
            return list(self._heard)

    def heard(self, *, until: type[Message] = Shut) -> list[Message]:
        """What has been answered up to such a message, or to the end."""
        with self._news:
            said = self._news.wait_for(lambda: self._over or any(isinstance(one, until) for one in self._heard), LIMIT)
            assert said, f"no {until.__name__}: {self._heard}"
            return list(self._heard)

    def _listen(self) -> None:
        reader = ReturnPathReader(extension=True)
        with contextlib.suppress(OSError):
            while data := self.main.recv(4096):
                reader.feed(data)
                with self._news:
                    self._heard += reader.events()
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()
