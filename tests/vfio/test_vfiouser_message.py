"""The bytes of vfio-user: layouts by hand, and nothing but one kind of error for bytes that are none."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool_plugins.vfio.vfiouser.message import (
    Capabilities,
    Header,
    MessageError,
    MessageFlag,
    UserCommand,
    Version,
    command,
    parse_version,
    reply,
    version,
)
from tests.support.made_streams import short_text

SIZES = ("max_msg_fds", "max_data_xfer_size")
NAMES = (*SIZES, "migration", "migpool")
"""The capabilities that we name."""


def test_a_command_and_its_reply_share_number_and_command() -> None:
    asked = command(7, UserCommand.MIG_DATA_READ, 8)
    assert asked == struct.pack("=HHIII", 7, 17, 24, 0, 0)
    header = Header.parse(asked, 24)
    assert (header.rest, header.is_reply, header.wants_reply, header.refusal) == (8, False, True, 0)
    assert reply(header, 100) == struct.pack("=HHIII", 7, 17, 116, 1, 0)
    refused = Header.parse(reply(header, 0, 22), 16)
    assert (refused.is_reply, refused.refusal) == (True, 22)
    quiet = Header.parse(command(7, UserCommand.MIG_DATA_WRITE, 8, no_reply=True), 24)
    assert not quiet.wants_reply
    assert quiet.flags == MessageFlag.NO_REPLY


@pytest.mark.parametrize("size", [0, 15, 101, 1 << 31])
def test_a_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(MessageError, match=f"says that it has {size} bytes: 16 to 100 are possible"):
        Header.parse(struct.pack("=HHIII", 1, 1, size, 0, 0), 100)


@given(
    st.builds(
        Capabilities,
        max_transfer=st.integers(1, 1 << 40),
        max_write=st.integers(1, 1 << 40),
        sticky_errors=st.booleans(),
        precopy_info=st.booleans(),
        parts=st.integers(0, 1 << 40),
    )
)
def test_capabilities_come_back_as_they_were_said(capabilities: Capabilities) -> None:
    assert parse_version(version(capabilities)).can == capabilities


@given(st.integers(0, 0xFFFF), st.frozensets(st.sampled_from([*NAMES, "twin_socket", "x"])))
def test_an_answer_is_at_most_what_was_proposed(minor: int, names: frozenset[str]) -> None:
    proposed = struct.pack("=HH", 0, minor)
    if names:
        proposed += json.dumps({"capabilities": {name: 9 if name in SIZES else {} for name in names}}).encode()
    answer = parse_version(version(Capabilities(max_write=5, parts=3), parse_version(proposed)))
    assert answer.minor == min(minor, 2)
    assert answer.names == names & set(NAMES)
    assert answer.can.max_write == (5 if "migpool" in names else 0)


def test_what_is_not_said_has_the_protocols_default_and_what_is_unknown_is_passed_over() -> None:
    bare = struct.pack("=HH", 0, 1)
    assert parse_version(bare) == Version(1, Capabilities(max_transfer=1 << 20), frozenset())
    said = {"capabilities": {"pgsizes": 4096, "max_msg_fds": 8, "migration": {"pgsize": 4096}}, "other": 1}
    assert parse_version(bare + json.dumps(said).encode() + b"\0rest").can == Capabilities()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_version_or_one_kind_of_error(payload: bytes) -> None:
    for data in (payload, struct.pack("=HH", 0, 2) + payload):
        try:
            assert isinstance(parse_version(data), Version)
        except MessageError:
            pass


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | short_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short_text, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["capabilities", "x"]),
        _JSON | st.dictionaries(st.sampled_from(["max_data_xfer_size", "migration", "migpool"]), _JSON),
    )
    | _JSON
)
def test_any_json_is_capabilities_or_one_kind_of_error(said: object) -> None:
    try:
        assert isinstance(parse_version(struct.pack("=HH", 0, 2) + json.dumps(said).encode()), Version)
    except MessageError:
        pass


def test_json_as_deep_as_a_message_allows_is_an_error_and_no_more() -> None:
    with pytest.raises(MessageError):
        parse_version(struct.pack("=HH", 0, 2) + b"[" * 4000)
