"""Multifd channels: golden packets, the data path's headers, whole channels in any pieces, what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import ProtocolError
from migpool.wire.channelreader import ChannelEvent, ChannelReader, DeviceStatePacket, RamPacket
from migpool.wire.devicestate import (
    HEADER_SIZE,
    DevicePacketHeader,
    DeviceStateHeader,
    DeviceStateParser,
    chunk_fields,
    device_packet_header,
    parse_device_packet_header,
)
from migpool.wire.multifd import (
    DEVICE_STATE,
    PREFIX_SIZE,
    SYNC,
    Compression,
    InitialPacket,
    header_rest,
    initial_packet,
    packet_flags,
    parse_initial_packet,
    ram_header_size,
)
from migpool.wire.ramheader import RamPacketHeader, parse_ram_header, ram_header, sync_header
from migpool.wire.rampacket import RamPacketParser
from migpool.wire.records import CONFIG_FRAME, config_within, frame_config
from migpool.wire.stream import begins_main_channel
from tests.support.made_streams import in_pieces, names, read_in_pieces, u32
from tests.support.wire_bytes import emit_packet

MAGIC = bytes.fromhex("11223344 00000001")
VFIO = "0000:01:00.0/vfio"


def test_the_first_bytes_tell_the_kind_of_channel() -> None:
    assert begins_main_channel(b"QEVM\0\0\0\3")
    assert not begins_main_channel(initial_packet(0))
    for wrong in (b"GET ", b"", b"QEV"):
        with pytest.raises(ProtocolError, match=r"5145564d \(main channel\) or 11223344 \(multifd channel\), found"):
            begins_main_channel(wrong)


def test_the_initial_packet_has_the_bytes_of_the_format() -> None:
    uuid = bytes(range(16))
    golden = MAGIC + uuid + b"\5" + bytes(39)
    assert initial_packet(5, uuid) == golden
    assert parse_initial_packet(golden, 9) == InitialPacket(uuid, 5, 9)
    assert len(initial_packet(0)) == 64
    for arguments in ((256, uuid), (0, b"short")):
        with pytest.raises(ValueError, match="0 to 255 and a uuid of 16 bytes"):
            initial_packet(*arguments)


def test_a_device_state_header_has_the_bytes_of_the_format() -> None:
    header = DeviceStateHeader(VFIO, 7)
    header.pack(3, 0x100000)
    golden = (
        MAGIC + bytes.fromhex("00000040") + VFIO.encode().ljust(256, b"\0") + bytes.fromhex("00000007 0010000c")
        + bytes.fromhex("00000000 00000003 00000000")
    )  # fmt: skip
    assert bytes(header.buffer) == golden
    assert len(header.buffer) == HEADER_SIZE == 288
    header.pack(4, 16, config=True)
    assert bytes(header.buffer) == golden[:272] + bytes.fromhex("0000001c 00000000 00000004 00000001")
    assert device_packet_header(DevicePacketHeader(VFIO, 7, 0x10000C)) == golden[:276]


@given(names, u32, u32, st.integers(0, 1 << 20), st.booleans())
def test_a_device_state_header_is_read_as_it_was_written(
    idstr: str, instance_id: int, index: int, size: int, config: bool
) -> None:
    header = DeviceStateHeader(idstr, instance_id)
    header.pack(index, size, config)
    parser = DeviceStateParser({(idstr, instance_id): "this one", ("other", 0): "another"}, 1 << 20)
    assert parser.parse(header.buffer) == ("this one", index, size, config)
    assert parse_device_packet_header(header.buffer) == DevicePacketHeader(idstr, instance_id, size + 12)
    assert chunk_fields(header.buffer[276:], size + 12) == (index, config)


def changed(at: int, value: str) -> bytes:
    """A good header of 288 bytes with other bytes at one place."""
    header = DeviceStateHeader(VFIO)
    header.pack(0, 100)
    new = bytes.fromhex(value)
    return bytes(header.buffer[:at]) + new + bytes(header.buffer[at + len(new) :])


@pytest.mark.parametrize(
    ("packet", "offset", "message"),
    [
        (changed(0, "51"), 0, "magic 0x11223344, found 0x51223344"),
        (changed(4, "00000002"), 4, "version 1, found 2"),
        (changed(8, "00000041"), 8, "DEVICE_STATE (0x40) stands alone, found 0x41"),
        (changed(8, "00000042"), 8, "DEVICE_STATE (0x40) stands alone, found 0x42"),
        (changed(8, "00000140"), 8, "none but 0x7f, found 0x140"),
        (changed(8, "00000001"), 8, "flags 0x40 (DEVICE_STATE), found a RAM or SYNC packet"),
        (changed(12, "61" * 256), 12, "a NUL as the last of 256 bytes"),
        (changed(12, "00"), 12, "1 to 255 bytes of ASCII, found b''"),
        (changed(12, "ff"), 12, "1 to 255 bytes of ASCII"),
        (
            changed(12, "31"),
            12,
            f"a device of this machine whose state crosses here ({VFIO!r} (0)), found '1000:",
        ),
        (changed(268, "00000001"), 12, f"found {VFIO!r} (1)"),
        (changed(272, "00000000"), 272, "1 to 1036 bytes, found 0"),
        (changed(272, "0000000b"), 272, "at least 12 bytes, found 11"),
        (changed(272, "0000040d"), 272, "1 to 1036 bytes, found 1037"),
        (changed(272, "ffffffff"), 272, "found 4294967295"),
        (changed(276, "00000001"), 276, "version 0, found 1"),
        (changed(284, "00000002"), 284, "no flags but 0x1, found 0x2"),
    ],
)
def test_a_wrong_device_state_header_is_explained(packet: bytes, offset: int, message: str) -> None:
    parser = DeviceStateParser({(VFIO, 0): 0}, 1024)
    with pytest.raises(ProtocolError) as caught:
        parser.parse(packet, 1000)
    assert caught.value.offset == 1000 + offset
    assert message in str(caught.value)


def test_what_stands_behind_the_nul_of_an_idstr_means_nothing() -> None:
    parser = DeviceStateParser({(VFIO, 0): "this one"}, 1024)
    assert parser.parse(changed(12 + len(VFIO) + 1, "61626300ff")) == ("this one", 0, 100, False)


@pytest.mark.parametrize("idstr", ["", "x" * 256, "a\0b", "\N{EURO SIGN}"])
def test_an_idstr_that_does_not_fit_is_refused(idstr: str) -> None:
    with pytest.raises(ValueError, match=r"ascii|ASCII"):
        DeviceStateHeader(idstr)


def test_a_ram_packet_has_the_bytes_of_the_format() -> None:
    header = RamPacketHeader(0, 9, "pc.ram", (0x3000, 0x1000), (0x5000,), 0x2000)
    packet = ram_header(header)
    assert len(packet) == ram_header_size(4096) == 1344
    assert packet == (
        MAGIC + bytes.fromhex("00000000 00000080 00000002 00002000 0000000000000009 00000001") + bytes(28)
        + b"pc.ram".ljust(256, b"\0")
        + bytes.fromhex("0000000000003000 0000000000001000 0000000000005000") + bytes(125 * 8)
    )  # fmt: skip
    assert parse_ram_header(packet) == header
    assert sync_header(9) == MAGIC + bytes.fromhex("00000001 00000080") + bytes(8) + b"\0" * 7 + b"\x09" + bytes(1312)
    assert parse_ram_header(sync_header(9)).sync


@pytest.mark.parametrize("way", list(Compression))
def test_the_ways_of_compression_are_told_apart(way: Compression) -> None:
    packet = ram_header(RamPacketHeader(way, 0, "a", (0,), (), 4096))
    assert parse_ram_header(packet).compression is way


def ram_changed(at: int, value: str, header: RamPacketHeader | None = None) -> bytes:
    packet = ram_header(header or RamPacketHeader(0, 0, "a", (0x1000,), (), 4096))
    new = bytes.fromhex(value)
    return packet[:at] + new + packet[at + len(new) :]


@pytest.mark.parametrize(
    ("packet", "offset", "message"),
    [
        (ram_changed(0, "00"), 0, "magic"),
        (ram_changed(8, "00000006"), 8, "one way of compression at most, found 0x6"),
        (ram_changed(8, "00000040"), 8, "found the flag DEVICE_STATE"),
        (ram_changed(12, "00000081"), 12, "at most 128 pages allocated, found 129"),
        (ram_changed(12, "00000000"), 16, "at most 0 pages, found 1 and 0 of zeros"),
        (ram_changed(16, "ffffffff"), 16, "at most 128 pages, found 4294967295"),
        (ram_changed(20, "00000fff"), 20, "a payload of 1 pages of 4096 bytes, found 4095 bytes"),
        (ram_changed(40, "01"), 36, "28 zero bytes"),
        (ram_changed(64, "61" * 256), 64, "a NUL within 256 bytes"),
        (ram_changed(64, "00"), 64, "a name in ASCII"),
        (ram_changed(320, "0000000000001001"), 320, "the offset of a page of 4096 bytes, found 0x1001"),
        (ram_changed(20, "7fffffff", RamPacketHeader(4, 0, "a", (0,), (), 1)), 20, "at most 1048576 bytes"),
    ],
)
def test_a_wrong_ram_header_is_explained(packet: bytes, offset: int, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_ram_header(packet, offset=5000)
    assert caught.value.offset == 5000 + offset
    assert message in str(caught.value)


def test_a_receiver_in_place_knows_after_each_step_how_much_to_read_next() -> None:
    device = DeviceStateHeader(VFIO)
    device.pack(0, 5)
    ram = RamPacketHeader(0, 1, "a", (0, 0x1000), (), 8192)
    channel = b"".join([bytes(device.buffer), b"state", ram_header(ram), bytes(8192), sync_header(2)])
    at = 0
    seen: list[object] = []
    while at < len(channel):
        flags = packet_flags(channel[at : at + PREFIX_SIZE], at)
        size = PREFIX_SIZE + header_rest(flags)
        packet = channel[at : at + size]
        if flags & DEVICE_STATE:
            header = parse_device_packet_header(packet, at)
            payload = header.size
            seen.append(header.idstr)
        else:
            parsed = parse_ram_header(packet, offset=at)
            payload = parsed.payload_size
            seen.append("SYNC" if flags & SYNC else parsed.block)
        at += size + payload
    assert at == len(channel)
    assert seen == [VFIO, "a", "SYNC"]


def test_a_config_travels_between_its_marks() -> None:
    buffers = frame_config(b"config space")
    assert buffers[1] == b"config space"
    framed = b"".join(buffers)
    assert framed == bytes.fromhex("ffffffffef100002") + b"config space" + bytes.fromhex("ffffffffef100001")
    assert len(framed) == 12 + CONFIG_FRAME
    assert bytes(config_within(framed)) == b"config space"
    assert bytes(config_within(b"".join(frame_config(b"")))) == b""
    for wrong, at in ((framed[1:], 0), (framed[:-1], len(framed) - 9), (framed[:15], 0)):
        with pytest.raises(ProtocolError, match="device config") as caught:
            config_within(wrong, 100)
        assert caught.value.offset == 100 + at


ram_packets = st.builds(
    lambda number, normal, zero: RamPacket(
        RamPacketHeader(0, number, "pc.ram" if normal or zero else "", normal, zero, 4096 * len(normal)),
        b"\x11" * (4096 * len(normal)),
    ),
    st.just(0),
    st.lists(st.integers(0, 9).map(lambda n: n * 4096), max_size=2).map(tuple),
    st.lists(st.integers(0, 9).map(lambda n: n * 4096), max_size=2).map(tuple),
)
compressed = st.builds(
    lambda way, data: RamPacket(RamPacketHeader(way, 0, "pc.ram", (0,), (), len(data)), data),
    st.sampled_from(list(Compression)[1:]),
    st.binary(min_size=1, max_size=50),
)
syncs = st.just(RamPacket(RamPacketHeader(SYNC, 0), b""))
device_packets = st.builds(
    lambda idstr, number, data: DeviceStatePacket(DevicePacketHeader(idstr, number, len(data)), data),
    names,
    u32,
    st.binary(min_size=1, max_size=50),
)


def numbered(packets: list[RamPacket | DeviceStatePacket]) -> bytes:
    """The bytes of a channel with these packets, the RAM ones numbered in their order."""
    parts = [initial_packet(1)]
    for number, packet in enumerate(packets):
        data = b"".join(emit_packet(packet))
        parts.append(
            data if isinstance(packet, DeviceStatePacket) else data[:24] + number.to_bytes(8, "big") + data[32:]
        )
    return b"".join(parts)


def read(data: bytes) -> list[ChannelEvent]:
    return read_in_pieces(ChannelReader(), [data])


@given(
    st.lists(ram_packets | compressed | syncs | device_packets, max_size=4),
    st.lists(st.integers(0, 20_000), max_size=10),
)
def test_a_channel_gives_back_what_was_written_whatever_the_pieces(
    packets: list[RamPacket | DeviceStatePacket], cuts: list[int]
) -> None:
    data = numbered(packets)
    whole = read(data)
    assert b"".join(b"".join(emit_packet(event)) for event in whole) == data
    assert read_in_pieces(ChannelReader(), in_pieces(data, cuts)) == whole
    assert [type(event) for event in whole] == [InitialPacket, *map(type, packets)]
    assert all(data[event.offset :].startswith(b"".join(emit_packet(event))) for event in whole)


DEVICE = DeviceStatePacket(DevicePacketHeader(VFIO, 0, 15), bytes(12) + b"abc")


def test_a_channel_damaged_at_any_byte_is_read_or_is_a_protocol_error() -> None:
    data = numbered([DEVICE, RamPacket(RamPacketHeader(4, 0, "a", (0,), (), 3), b"abc")])
    before = read(data)
    meaningless = set()
    for at in range(len(data)):
        for value in (data[at] ^ 1, data[at] ^ 0xFF):
            damaged = data[:at] + bytes((value,)) + data[at + 1 :]
            try:
                if read(damaged) == before:
                    meaningless.add(at)
            except ProtocolError as error:
                assert 0 <= error.offset <= len(data)  # noqa: PT017
    ram = 64 + 276 + 15
    after_names = {*range(64 + 12 + len(VFIO) + 1, 64 + 267), *range(ram + 64 + 2, ram + 320)}
    assert meaningless == after_names | set(range(ram + 328, ram + 1344))


def test_a_channel_cut_inside_a_packet_is_an_error_and_between_packets_is_not() -> None:
    data = numbered([DEVICE, DEVICE])
    size = len(b"".join(emit_packet(DEVICE)))
    for length in range(len(data)):
        if length in (64, 64 + size):
            read(data[:length])
            continue
        with pytest.raises(ProtocolError, match="the end of the input"):
            read(data[:length])


def test_packet_numbers_rise_on_a_channel() -> None:
    with pytest.raises(ProtocolError, match="a number above 5, found 5") as caught:
        read(initial_packet(0) + sync_header(5) + ram_header(RamPacketHeader(0, 5, "a", (0,), (), 4096)) + bytes(4096))
    assert caught.value.offset == 64 + 1344 + 24


def test_an_older_source_has_pages_in_a_sync_and_stale_fields_in_a_packet_without_pages() -> None:
    riding = ram_header(RamPacketHeader(SYNC, 7, "a", (0x1000,), (), 4096)) + bytes(4096)
    stale = ram_header(RamPacketHeader(0, 7, "a", (), (), 4096))
    last = ram_header(RamPacketHeader(SYNC, 9, "a", (), (), 4096))
    packets = read(initial_packet(0) + riding + stale + last)[1:]
    seen = [(len(packet.payload), packet.header.sync) for packet in packets if isinstance(packet, RamPacket)]
    assert seen == [(4096, True), (0, False), (0, True)]
    found = RamPacketParser({"a": (8192, None)}).parse(riding)
    assert found is not None
    assert found[1] == [(1, 2)]


def test_a_channel_begins_with_its_initial_packet() -> None:
    with pytest.raises(ProtocolError, match="39 zero bytes"):
        read(b"".join(emit_packet(DEVICE)))
