"""The front of a stream, its end, and its pages as packets."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from migpool.errors import ProtocolError, UsageError
from migpool.streams.file.fromfile import Packets
from migpool.streams.file.front import EndFinder, Front
from migpool.wire.channelreader import ChannelReader, RamPacket
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.multifd import initial_packet
from migpool.wire.ram import RamPages, pages
from migpool.wire.sections import footer
from migpool.wire.stream import emit, eof, header, vm_description
from migpool.wire.unread import Buffer
from tests.support.made_machine import DESCRIPTION, PAGE, machine_stream, page
from tests.support.wire_bytes import section_full, section_start

BEGINNING = header() + configuration(Configuration("m"))


def split(stream: bytes, cuts: Sequence[int]) -> tuple[bytes, bytes]:
    """What a front makes of a stream in pieces: the events' bytes, and the rest."""
    front = Front()
    events = b""
    rest = b""
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if front.rest is not None:
            rest += stream[begin:end]
            continue
        front.feed(stream[begin:end])
        while (event := front.next_event()) is not None:
            events += b"".join(map(bytes, emit(event)))
        rest += bytes(front.rest or b"")
    return events, rest


def test_a_stream_is_its_front_and_its_rest_however_it_is_cut(stream: bytes) -> None:
    events, rest = split(stream, [])
    assert events + rest == stream
    chance = random.Random(4)
    for count in (1, 2, 5, 40):
        assert split(stream, sorted(chance.sample(range(1, len(stream)), count))) == (events, rest)
    assert split(machine_stream()[:2000], range(1, 2000)) == split(machine_stream()[:2000], [])


def test_a_front_takes_nothing_after_its_end() -> None:
    front = Front()
    front.feed(BEGINNING + eof())
    drained(front)
    assert bytes(front.rest or b"") == eof()
    with pytest.raises(UsageError, match="has ended"):
        front.feed(b"x")


def test_an_unknown_device_before_the_end_of_ram_is_named() -> None:
    front = Front()
    front.feed(BEGINNING + b"".join(map(bytes, section_start(3, "cpu-topology", b"x" * 40))))
    with pytest.raises(ProtocolError, match=r"before the end of RAM .* found 'cpu-topology'"):
        drained(front)


def test_a_device_before_ram_is_no_front_for_multifd() -> None:
    front = Front()
    front.feed(BEGINNING + b"".join(map(bytes, section_full(3, "virtio-mem-early", b"x"))))
    drained(front)
    with pytest.raises(ProtocolError, match="sent earlier"):
        front.check_ram()


def test_the_end_of_the_input_inside_the_front_is_an_error() -> None:
    for cut in (3, len(BEGINNING), len(BEGINNING) + 1):
        front = Front()
        front.feed(machine_stream()[:cut])
        drained(front)
        with pytest.raises(ProtocolError):
            front.end()


def described(text: bytes) -> bytes:
    """The item with the description of a machine."""
    return b"".join(map(bytes, vm_description(text)))


def drained(front: Front) -> Front:
    """A front of which all events have been taken."""
    while front.next_event() is not None:
        pass
    return front


def found_end(data: bytes, size: int = 7) -> tuple[list[int], bool]:
    """After how many bytes a finder says that the stream is described, and whether it is whole at last."""
    finder = EndFinder(lambda at, length: data[at : at + length])
    described = []
    for begin in range(0, len(data), size):
        finder.feed(data[begin : begin + size])
        if finder.described:
            described.append(min(begin + size, len(data)))
    return described, finder.whole


@pytest.mark.parametrize("size", [1, 2, 7, 11, 64, 1 << 20])
def test_a_described_stream_ends_at_its_last_byte_and_nowhere_else(stream: bytes, size: int) -> None:
    rest = split(stream, [])[1]
    assert found_end(rest, size) == ([len(rest)], True)
    assert found_end(rest[:-1], size) == ([], False)


@pytest.mark.parametrize(
    "decoy",
    [
        b"\x00\x06\x00\x00\x00\x02{}",
        b'\x00\x06\x00\x00\x00\x09{"a": 1}' + b"x",
        b"\x00\x06\x00\x00\x00\x04{" + b"\x00\x06\x00",
        b"\x00\x06" * 200 + b"{",
        b"\x00\x06\x00\x00\x7b\x00{" * 90,
        b"\x00\x06\x00\x00\x00\x03{\xff}",
    ],
)
def test_what_only_looks_like_the_end_is_not_taken_for_it(decoy: bytes) -> None:
    end = eof() + described(DESCRIPTION)
    assert found_end(decoy, 1) == ([], False)
    assert found_end(decoy + end, 1) == ([len(decoy + end)], True)


def test_without_a_description_only_eof_behind_a_footer_is_an_end() -> None:
    for end in (eof(), eof() + described(b"")):
        assert found_end(b"device" + footer(9) + end) == ([], True)
    assert found_end(b"device" + footer(9)) == ([], False)
    assert found_end(b"device, and more" + eof()) == ([], False)


def test_copies_of_a_page_keep_their_order_on_one_channel() -> None:
    sent: list[list[bytes]] = [[], [], []]

    def send(channel: int, buffers: Sequence[Buffer]) -> None:
        sent[channel].append(b"".join(map(bytes, buffers)))

    packets = Packets(3, PAGE, send)
    chance = random.Random(9)
    wanted: dict[tuple[str, int], bytes | None] = {}
    for batch in range(60):
        block = chance.choice(["pc.ram", "vga"])
        entries = [(chance.randrange(2000) * PAGE, page(batch) if chance.random() < 0.7 else None) for _ in range(100)]
        wanted.update({(block, address): content for address, content in entries})
        packets.add(as_event(block, entries))
    packets.sync()
    loaded: dict[tuple[str, int], bytes | None] = {}
    numbers = []
    for channel, packet_bytes in enumerate(sent):
        reader = ChannelReader()
        reader.feed(initial_packet(channel) + b"".join(packet_bytes))
        found = [packet for packet in reader.events() if isinstance(packet, RamPacket)]
        reader.end()
        assert [packet.header.sync for packet in found] == [False] * (len(found) - 1) + [True]
        for packet in found:
            numbers.append(packet.header.packet_number)
            assert len({*packet.header.normal, *packet.header.zero}) <= 128
            for number, address in enumerate(packet.header.normal):
                content = bytes(packet.payload[number * PAGE : (number + 1) * PAGE])
                loaded[packet.header.block, address] = content
            loaded.update({(packet.header.block, address): None for address in packet.header.zero})
    assert loaded == wanted
    assert len(numbers) == len(set(numbers))


def as_event(block: str, entries: Sequence[tuple[int, bytes | None]]) -> RamPages:
    """Pages as a stream's reader gives them."""
    data = b"".join(map(bytes, pages(block, entries)))
    positions = []
    at = 8 + 1 + len(block)
    for _, content in entries:
        positions.append(-1 if content is None else at)
        at += 8 + (1 if content is None else PAGE)
    return RamPages(block, True, PAGE, tuple(address for address, _ in entries), tuple(positions), memoryview(data))
