"""Sources that cannot be stored: each is told so, and nothing is left of the file."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.errors import PeerError, ProtocolError, TimeLimitExceeded
from migpool.transport.address import Address
from migpool.wire.commands import Command, CommandKind, command, open_return_path, ping
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.devicestate import DeviceStateHeader
from migpool.wire.multifd import SYNC, initial_packet
from migpool.wire.ram import RamBlock, block_list, multifd_flush, ram_section_end
from migpool.wire.ramheader import RamPacketHeader, ram_header, sync_header
from migpool.wire.records import data_record, end_payload, initial_data_sent, setup_payload
from migpool.wire.returnpath import Message, Pong, ReturnPathReader, Shut, SwitchoverAck
from migpool.wire.sections import Kind, SectionHead, footer, head_bytes, section
from migpool.wire.stream import eof, header, vm_description
from tests.support.made_machine import DESCRIPTION, PAGE, machine_stream, page
from tests.support.qemu_source import wait_until_read
from tests.support.storing_thread import LIMIT, Receiver
from tests.support.wire_bytes import section_full

RAM = SectionHead(Kind.START, 2, "ram", 0, 4)
BLOCKS = head_bytes(RAM) + block_list([RamBlock("pc.ram", 64 * PAGE)])
BEGINNING = header() + configuration(Configuration("made-up-10.0")) + open_return_path() + ping(7)
MADE_UP = len(header() + configuration(Configuration("made-up", uuid=bytes(16))))
"""Where the first section of the made-up machine's stream begins."""
END = head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)) + multifd_flush() + ram_section_end(2)


class Source:
    """Connections to a destination: a main channel and some for multifd."""

    def __init__(self, path: Path, channels: int, stack: contextlib.ExitStack, beginning: bytes = BEGINNING) -> None:
        self._path = path
        self._stack = stack
        self.main = self.open()
        self.main.sendall(beginning)
        self.channels = [self.open() for _ in range(channels)]

    def open(self) -> socket.socket:
        """One more connection."""
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(LIMIT)
        sock.connect(str(self._path))
        return sock

    def greet(self) -> None:
        """Say on each multifd channel what it is."""
        for number, channel in enumerate(self.channels):
            channel.sendall(initial_packet(number))

    def answers(self) -> list[Message]:
        """What the destination says until it ends the connection."""
        reader = ReturnPathReader()
        with contextlib.suppress(ConnectionResetError):
            while data := self.main.recv(4096):
                reader.feed(data)
        return list(reader.events())


@contextlib.contextmanager
def migrating(tmp_path: Path, channels: int, idle: float = LIMIT) -> Iterator[tuple[Source, Receiver]]:
    """A source that has greeted a destination, which stores; nothing may be left of the file."""
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, channels, idle) as receiver, contextlib.ExitStack() as stack:
        source = Source(tmp_path / "s", channels, stack)
        source.greet()
        yield source, receiver
    assert receiver.stored is None
    assert list(tmp_path.iterdir()) == []


REFUSED = [SwitchoverAck(0), Pong(7, 4), Shut(1, 12)]


def test_state_of_a_device_that_has_not_begun_is_refused(tmp_path: Path) -> None:
    with migrating(tmp_path, 1) as (source, receiver):
        source.main.sendall(BLOCKS + multifd_flush() + ram_section_end(2))
        device = DeviceStateHeader("0000:01:00.0/vfio", 0)
        device.pack(0, 3)
        source.channels[0].sendall(sync_header(1) + device.buffer + b"abc" + sync_header(2))
        source.main.sendall(END)
        assert source.answers() == REFUSED
    assert isinstance(receiver.error, ProtocolError)
    assert "a VFIO device that has begun, found that of '0000:01:00.0/vfio' (0)" in str(receiver.error)
    assert str(receiver.error).endswith("switch x-migration-multifd-transfer off for the device")


def test_a_page_after_the_last_flush_is_refused(tmp_path: Path) -> None:
    with migrating(tmp_path, 1) as (source, receiver):
        packet = ram_header(RamPacketHeader(0, 9, "pc.ram", (PAGE,), (), PAGE)) + page(1)
        source.main.sendall(BLOCKS + multifd_flush() + ram_section_end(2) + END)
        source.channels[0].sendall(sync_header(1) + sync_header(2) + packet)
        assert source.answers() == REFUSED
    assert "no page after the last flush, found one" in str(receiver.error)


def test_a_page_after_the_last_flush_is_refused_also_before_it_is_known_that_it_was_the_last(tmp_path: Path) -> None:
    """The channel is read to its end before the main channel says that RAM is over."""
    with migrating(tmp_path, 1) as (source, receiver):
        packet = ram_header(RamPacketHeader(0, 9, "pc.ram", (PAGE,), (), PAGE)) + page(1)
        source.main.sendall(BLOCKS + multifd_flush() + ram_section_end(2) + END[: -len(ram_section_end(2))])
        source.channels[0].sendall(sync_header(1) + sync_header(2) + packet)
        wait_until_read(source.channels[0])
        source.main.sendall(END[-len(ram_section_end(2)) :] + eof() + b"".join(vm_description(DESCRIPTION)))
        assert source.answers() == REFUSED
    assert "no page after the last flush, found one" in str(receiver.error)


def early(*, barriers: int) -> bytes:
    """A main channel up to its end as machine types up to 8.0 have it: no flush, but the end of each section."""
    part = head_bytes(SectionHead(Kind.PART, 2, "ram", 0, 4)) + ram_section_end(2)
    end = head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)) + ram_section_end(2)
    rest = eof() + b"".join(map(bytes, vm_description(DESCRIPTION)))
    return BLOCKS + ram_section_end(2) + part * (barriers - 2) + end + rest


def ram_packet(number: int, content: bytes, *, sync: bool = False) -> bytes:
    """One page at one place; a SYNC rides on it where QEMU 7.2 was the source."""
    return ram_header(RamPacketHeader(SYNC if sync else 0, number, "pc.ram", (PAGE,), (), PAGE)) + content


def test_without_flushes_the_end_of_each_section_is_one(tmp_path: Path) -> None:
    """The last copy of a page counts, on whichever channel it comes, so none may be passed by an earlier one."""
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, 2) as receiver, contextlib.ExitStack() as stack:
        source = Source(tmp_path / "s", 2, stack)
        source.greet()
        source.channels[1].sendall(sync_header(1) + ram_packet(2, page(1), sync=True) + sync_header(3))
        source.channels[0].sendall(sync_header(1) + sync_header(2) + ram_packet(3, page(2)) + sync_header(4))
        source.main.sendall(early(barriers=3))
        source.main.shutdown(socket.SHUT_WR)
        assert source.answers()[-1:] == [Shut(0, 12)]
    assert receiver.stored is not None
    stored = (tmp_path / "kept").read_bytes()
    assert 0 < stored.index(page(1)) < stored.index(page(2))


def test_a_flush_does_not_wait_for_the_footer_behind_it(tmp_path: Path) -> None:
    """A source keeps the footer in a buffer while it sends the pages that come next, more than sockets hold."""
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, 1) as receiver, contextlib.ExitStack() as stack:
        source = Source(tmp_path / "s", 1, stack)
        source.greet()
        main = early(barriers=2)
        eos = main.index(footer(2))
        source.main.sendall(main[:eos])
        source.channels[0].sendall(sync_header(1) + b"".join(ram_packet(n, page(n)) for n in range(2, 300)))
        source.main.sendall(main[eos:])
        source.channels[0].sendall(sync_header(300))
        source.main.shutdown(socket.SHUT_WR)
        assert source.answers()[-1:] == [Shut(0, 12)]
    assert receiver.stored is not None
    assert receiver.stored.pages == 298


def test_more_syncs_than_flushes_are_pages_that_would_be_lost(tmp_path: Path) -> None:
    with migrating(tmp_path, 1) as (source, receiver):
        blocks = BLOCKS + multifd_flush() + ram_section_end(2)
        end = head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)) + ram_section_end(2)
        source.channels[0].sendall(sync_header(1) + ram_packet(2, page(1)) + sync_header(3))
        source.main.sendall(blocks)
        deadline = time.monotonic() + LIMIT
        while (tmp_path / "kept.partial").stat().st_size < PAGE and time.monotonic() < deadline:
            time.sleep(0.01)
        source.main.sendall(end + eof() + b"".join(map(bytes, vm_description(DESCRIPTION))))
        assert source.answers()[-1:] == [Shut(1, 12)]
    assert "a SYNC for each of the main channel's 1 flushes, found 2" in str(receiver.error)


def test_a_channel_that_is_closed_before_a_flush_ends_it(tmp_path: Path) -> None:
    with migrating(tmp_path, 2) as (source, receiver):
        source.main.sendall(BLOCKS + multifd_flush() + ram_section_end(2))
        source.channels[0].sendall(sync_header(1))
        source.channels[1].shutdown(socket.SHUT_WR)
        assert source.answers() == REFUSED
    assert isinstance(receiver.error, PeerError)
    assert str(receiver.error) == "the source closed multifd channel 1 before the end of RAM"


def test_a_channel_that_never_comes_to_a_flush_is_named(tmp_path: Path) -> None:
    with migrating(tmp_path, 2, idle=0.5) as (source, receiver):
        source.main.sendall(BLOCKS + multifd_flush() + ram_section_end(2))
        source.channels[0].sendall(sync_header(1))
        assert source.answers() == REFUSED
    assert isinstance(receiver.error, TimeLimitExceeded)
    assert str(receiver.error) == "multifd channels 1 have not come to the flush within 0.5 s"


def test_one_connection_too_many_is_refused_at_any_time(tmp_path: Path) -> None:
    with migrating(tmp_path, 1) as (source, receiver):
        try:
            stranger = source.open()
        except FileNotFoundError:
            return  # the migration is under way, and nobody can come any more
        source.main.sendall(BLOCKS + ram_section_end(2))
        stranger.sendall(initial_packet(2))
        assert source.answers()[-1:] in ([Shut(1, 12)], [])
    assert isinstance(receiver.error, PeerError)
    assert str(receiver.error) == (
        "the destination took 1 of 3 multifd channels: both ends need the same number of channels; "
        "give --channels as the source has"
    )


def test_strangers_while_it_is_stored_are_noted_and_end_nothing(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, 0) as receiver, contextlib.ExitStack() as stack:
        source = Source(tmp_path / "s", 0, stack)
        stream = machine_stream()[MADE_UP:]
        source.open().close()
        source.open()
        source.open().sendall(b"GET / HTTP/1.0")
        source.open().sendall(b"QEVM")
        source.main.sendall(stream[: len(stream) // 2])
        deadline = time.monotonic() + LIMIT
        while (tmp_path / "s").exists() and time.monotonic() < deadline:  # nobody can come any more
            time.sleep(0.01)
        with pytest.raises(OSError, match="No such file"):
            source.open()
        source.main.sendall(stream[len(stream) // 2 :])
        source.main.shutdown(socket.SHUT_WR)
        assert source.answers()[-1:] == [Shut(0, 12)]
    assert receiver.stored is not None
    assert (tmp_path / "kept").stat().st_size == receiver.stored.size


@pytest.mark.parametrize(
    ("machine", "acknowledge", "said"),
    [
        ("pc-q35-11.0", None, True),
        ("pc-i440fx-2.8", None, True),
        ("pc-q35-9.2+pve1", None, True),
        ("s390-ccw-virtio-11.1", None, False),
        ("virt-12.0", None, False),
        ("microvm", None, False),
        ("pc-q35-rhel9.6.0", None, False),
        ("microvm", True, True),
        ("pc-q35-11.0", False, False),
        ("pc-q35-11.1", True, True),
    ],
)
def test_a_switchover_is_acknowledged_unasked_only_to_sources_that_wait_for_it(
    tmp_path: Path, machine: str, acknowledge: bool | None, said: bool
) -> None:
    address = Address(path=str(tmp_path / "s"))
    receiver = Receiver(tmp_path / "kept", address, 0, acknowledge=acknowledge)
    with receiver, contextlib.ExitStack() as stack:
        beginning = header() + configuration(Configuration(machine)) + open_return_path() + ping(7)
        source = Source(tmp_path / "s", 0, stack, beginning)
        source.main.shutdown(socket.SHUT_WR)
        assert (SwitchoverAck() in source.answers()) == said
    unclear = acknowledge is None and machine in ("microvm", "pc-q35-rhel9.6.0")
    assert [f"machine {machine} has no version" in line for line in receiver.noted] == [True] * unclear


@pytest.mark.parametrize(("machine", "acknowledgements"), [("q35-11.0", 1), ("q35-11.1", 2)])
def test_initial_data_is_acknowledged_as_the_machine_wants_it_and_stored_without_its_mark(
    tmp_path: Path, machine: str, acknowledgements: int
) -> None:
    """A file has no return path: QEMU would refuse the mark there."""
    device = SectionHead(Kind.START, 7, "0000:00:01.0/vfio", 0, 1)
    other = replace(device, section_id=8, idstr="0000:00:02.0/vfio")
    part = replace(device, kind=Kind.PART)
    sections = [
        section(device, setup_payload()),
        section(other, setup_payload()),
        section(part, [*data_record(b"first"), initial_data_sent()]),
        section(replace(part, section_id=8), [initial_data_sent()]),
    ]
    begins = b"".join(bytes(buffer) for buffers in sections for buffer in buffers)
    end = head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)) + ram_section_end(2)
    rest = eof() + b"".join(map(bytes, vm_description(DESCRIPTION)))
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, 0) as receiver, contextlib.ExitStack() as stack:
        beginning = header() + configuration(Configuration(machine)) + open_return_path() + ping(7)
        source = Source(tmp_path / "s", 0, stack, beginning)
        source.main.sendall(BLOCKS + ram_section_end(2) + begins + end + rest)
        source.main.shutdown(socket.SHUT_WR)
        said = source.answers()
    assert sum(isinstance(message, SwitchoverAck) for message in said) == acknowledgements
    assert isinstance(said[-1], Shut)
    assert receiver.stored is not None
    stored = (tmp_path / "kept").read_bytes()
    assert begins.replace(initial_data_sent(), end_payload()) in stored
    assert initial_data_sent() not in stored


def test_a_source_that_does_not_hear_the_end_may_have_gone_on(tmp_path: Path) -> None:
    """The file is kept, as it may be the only one; but it is said that it may not be."""
    with Receiver(tmp_path / "kept", Address(path=str(tmp_path / "s")), 0) as receiver, contextlib.ExitStack() as stack:
        source = Source(tmp_path / "s", 0, stack)
        source.main.sendall(machine_stream()[MADE_UP:])
        source.main.close()
    assert receiver.stored is None
    assert isinstance(receiver.error, PeerError)
    assert "its machine may run on there" in str(receiver.error)
    assert (tmp_path / "kept").exists()


def test_multifd_where_none_was_expected_is_refused(tmp_path: Path) -> None:
    with migrating(tmp_path, 0) as (source, receiver):
        source.main.sendall(BLOCKS + multifd_flush())
        assert source.answers() == REFUSED
    assert "give --channels as the source has" in str(receiver.error)


@pytest.mark.parametrize("wish", [CommandKind.POSTCOPY_ADVISE, CommandKind.ENABLE_COLO])
def test_other_ways_of_migration_are_refused_by_name(tmp_path: Path, wish: CommandKind) -> None:
    with migrating(tmp_path, 0) as (source, receiver):
        source.main.sendall(command(Command(wish)))
        assert source.answers() == REFUSED
    assert f"command {wish.name}" in str(receiver.error)


def test_an_end_that_cannot_be_told_is_not_taken_for_one(tmp_path: Path) -> None:
    with migrating(tmp_path, 0, idle=0.5) as (source, receiver):
        end = head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)) + ram_section_end(2)
        devices = b"".join(map(bytes, section_full(5, "device", b"state"))) + eof()
        source.main.sendall(BLOCKS + ram_section_end(2) + end + devices)
        assert source.answers() == REFUSED
    assert isinstance(receiver.error, TimeLimitExceeded)
    assert "whether that is all cannot be told" in str(receiver.error)


@pytest.mark.parametrize("devices", [b"", b"\x04half a section", footer(5)])
def test_a_source_that_goes_away_leaves_nothing(tmp_path: Path, devices: bytes) -> None:
    with migrating(tmp_path, 0) as (source, receiver):
        end = head_bytes(SectionHead(Kind.END, 2, "ram", 0, 4)) + ram_section_end(2)
        source.main.sendall(BLOCKS + ram_section_end(2) + end + devices)
        source.main.shutdown(socket.SHUT_WR)
        assert source.answers() == REFUSED
    assert isinstance(receiver.error, PeerError)


def test_two_uuids_are_no_machine(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, 2, 0.5) as receiver, contextlib.ExitStack() as stack:
        source = Source(tmp_path / "s", 2, stack)
        source.channels[0].sendall(initial_packet(0, bytes(16)))
        source.channels[1].sendall(initial_packet(1, bytes(range(16))))
        assert source.answers() == []
    assert "the source opened 1 of 2 multifd channels and the main channel within 0.5 s" in str(receiver.error)
    assert list(tmp_path.iterdir()) == []
