"""The return path: QEMU's messages and this project's own."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import ProtocolError
from migpool.wire.returnpath import (
    Digest,
    Failed,
    GrantMessage,
    Message,
    Pong,
    RecvBitmap,
    RequestPages,
    ResumeAck,
    ReturnPathReader,
    Running,
    Shut,
    SwitchoverAck,
    Welcome,
    encode,
)
from tests.support import LONG
from tests.support.made_streams import in_pieces, names, read_in_pieces, u32

u16 = st.integers(0, 2**16 - 1)
u64 = st.integers(0, 2**64 - 1)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Shut, u32),
    st.builds(Pong, u32),
    st.builds(RequestPages, u64, u32, st.none() | names),
    st.builds(RecvBitmap, names),
    st.builds(ResumeAck, st.just(1)),
    st.builds(SwitchoverAck),
    st.builds(GrantMessage, u16, u32),
    st.builds(Welcome, st.integers(4096, 64 << 20), u16),
    st.builds(Running, st.binary(min_size=16, max_size=16), st.integers(1, 2**63 - 1)),
    st.builds(Failed, names),
    st.builds(Digest, u16, st.binary(min_size=32, max_size=32)),
)


def read(data: bytes, *, extension: bool = True) -> list[Message]:
    return read_in_pieces(ReturnPathReader(extension), [data])


def test_the_whole_answer_of_a_recorded_destination() -> None:
    answer = bytes.fromhex("00070000 0002000400000001 0001000400000000")
    assert read(answer, extension=False) == [SwitchoverAck(0), Pong(1, 4), Shut(0, 12)]
    assert encode(SwitchoverAck()) + encode(Pong(1)) + encode(Shut(0)) == answer


@pytest.mark.parametrize(
    ("message", "golden"),
    [
        (RequestPages(0x1000, 0x2000, "ram"), "0003 0010 0000000000001000 00002000 03 72616d"),
        (RequestPages(0x1000, 0x2000), "0004 000c 0000000000001000 00002000"),
        (RecvBitmap("ram"), "0005 0004 03 72616d"),
        (ResumeAck(1), "0006 0004 00000001"),
        (GrantMessage(3, 17), "4d50 0008 00000003 00000011"),
        (Welcome(0x100000, 4), "4d51 0008 00100000 00000004"),
        (Running(bytes(range(16)), 5), "4d52 0018 000102030405060708090a0b0c0d0e0f 0000000000000005"),
        (Failed("no room"), "4d53 0007 6e6f20726f6f6d"),
        (Digest(2, bytes(range(32))), "4d54 0024 00000002" + bytes(range(32)).hex()),
    ],
)
def test_messages_have_the_bytes_of_the_format(message: Message, golden: str) -> None:
    assert encode(message) == bytes.fromhex(golden)
    assert read(bytes.fromhex(golden)) == [message]


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 500), max_size=6))
def test_messages_come_back_as_they_were_whatever_the_pieces(sent: list[Message], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    got = read_in_pieces(ReturnPathReader(True), in_pieces(data, cuts))
    assert got == read(data)
    assert b"".join(map(encode, got)) == data
    assert all(data[message.offset :].startswith(encode(message)) for message in got)


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        ("00000000", 0, "a type of 1 to 7, found 0x0"),
        ("00080000", 0, "a type of 1 to 7, found 0x8"),
        ("00070000 4d500008 00000000 00000000", 4, "which was not agreed on"),
        ("0001000300000000", 2, "SHUT message at byte 2: a length of 4 bytes, found 3"),
        ("00050201", 2, "at most 512 bytes, found 513"),
        ("0003000c 0000000000001000 00002000", 2, "more than 12 bytes, found 12"),
        ("00050003 03 6162", 4, "a counted ASCII block name, found b'\\x03ab'"),
        ("00050000", 4, "a counted ASCII block name, found b''"),
        ("00020004 000000", 0, "PONG message at byte 0: 8 bytes or more, found 7 and the end of the input"),
    ],
)
def test_an_error_says_where_and_what_was_expected(data: str, offset: int, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(bytes.fromhex(data), extension=False)
    assert caught.value.offset == offset
    assert message in str(caught.value)


def test_own_messages_may_be_agreed_on_while_reading() -> None:
    reader = ReturnPathReader()
    reader.feed(encode(SwitchoverAck()))
    assert list(reader.events()) == [SwitchoverAck(0)]
    reader.extension = True
    reader.feed(encode(GrantMessage(0, 8)))
    assert list(reader.events()) == [GrantMessage(0, 8, 4)]


@pytest.mark.parametrize("data", ["4d530000", "4d5301e1" + "41" * 481, "4d530001ff", "4d500004 00000000"])
def test_own_messages_are_checked(data: str) -> None:
    with pytest.raises(ProtocolError):
        read(bytes.fromhex(data))


def test_a_reason_is_one_line_of_at_most_480_bytes_and_cannot_steer_a_terminal() -> None:
    assert encode(Failed("no\nroom \t left"))[4:] == b"no room left"
    long = encode(Failed("\N{EURO SIGN}" * 200))
    assert len(long) == 4 + 480
    assert read(long) == [Failed("\N{EURO SIGN}" * 160)]
    assert len(encode(Failed("x" + "\N{EURO SIGN}" * 200))) == 4 + 478
    assert read(bytes.fromhex("4d530004 611b5b62")) == [Failed("a [b")]
    with pytest.raises(ValueError, match="must say why"):
        encode(Failed(" \n "))


@pytest.mark.parametrize(
    "message", [RecvBitmap(""), RequestPages(0, 0, "x" * 256), Running(b"short", 0), Digest(0, b"short")]
)
def test_what_does_not_fit_is_refused_before_it_is_sent(message: Message) -> None:
    with pytest.raises(ValueError, match="bytes"):
        encode(message)


def test_a_cut_at_any_byte_inside_a_message_is_an_error() -> None:
    data = encode(RequestPages(1, 2, "ram")) + encode(Failed("why"))
    between = len(encode(RequestPages(1, 2, "ram")))
    for length in set(range(1, len(data))) - {between}:
        with pytest.raises(ProtocolError, match="the end of the input"):
            read(data[:length])
    assert len(read(data[:between])) == 1


def fixed(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


RANGES = {
    "value of ResumeAck": (6, 0, 4, 4, 1, 1),
    "device of GrantMessage": (0x4D50, 0, 4, 8, 0, 65535),
    "chunk of Welcome": (0x4D51, 0, 4, 8, 4096, 64 << 20),
    "devices of Welcome": (0x4D51, 4, 4, 8, 0, 65535),
    "nanoseconds of Running": (0x4D52, 16, 8, 24, 1, 2**63 - 1),
    "place of Digest": (0x4D54, 0, 4, 36, 0, 65535),
}
"""The type, where the field stands in the data, its size, the data's, and what it may be."""


@pytest.mark.parametrize("field", RANGES)
def test_a_field_beyond_its_range_is_refused_with_its_place(field: str) -> None:
    kind, at, size, whole, least, most = RANGES[field]
    good = bytearray((8192).to_bytes(4, "big") if field == "devices of Welcome" else bytes(4)).ljust(whole, b"\0")
    for value in sorted({0, 1, 2**31, 2 ** (8 * size) - 1, least, most, max(0, least - 1), most + 1}):
        good[at : at + size] = value.to_bytes(size, "big")
        if field == "chunk of Welcome":
            good[4:8] = bytes(4)
        data = fixed(2, bytes(4)) + fixed(kind, bytes(good))
        if least <= value <= most:
            assert len(read(data)) == 2
            continue
        with pytest.raises(ProtocolError) as caught:
            read(data)
        assert (caught.value.item, caught.value.offset) == (field, 8 + 4 + at)


def test_random_messages_are_messages_or_protocol_errors() -> None:
    chosen = random.Random(18)
    kinds = [*range(9), *range(0x4D4F, 0x4D57)]
    sizes = {1: 4, 2: 4, 4: 12, 6: 4, 7: 0, 0x4D50: 8, 0x4D51: 8, 0x4D52: 24, 0x4D54: 36}
    values = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\x10\0", b"\0\0\0\1"]
    taken = 0
    places = []
    count = 250_000 if LONG else 40_000
    for _ in range(count):
        kind = chosen.choice(kinds)
        size = sizes.get(kind, chosen.randrange(40)) if chosen.random() < 0.9 else chosen.randrange(600)
        words = b"".join(chosen.choices(values, k=size // 4)) if chosen.random() < 0.7 else chosen.randbytes(size)
        reader = ReturnPathReader(True)
        reader.feed(fixed(kind, words.ljust(size, b"a")))
        try:
            taken += len(list(reader.events()))
        except ProtocolError as error:
            places.append(error.offset - size)
    assert taken > count // 10 < len(places)
    assert max(places) <= 4


@pytest.mark.parametrize("text", [b" ", b"\n\t", "\u2003\x1b".encode()])
def test_a_reason_without_a_word_is_none(text: bytes) -> None:
    reader = ReturnPathReader(extension=True)
    reader.feed(encode(Failed("x" * len(text)))[:4] + text)
    with pytest.raises(ProtocolError, match="FAILED message at byte 4: text that can be read"):
        list(reader.events())
