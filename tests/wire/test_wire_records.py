"""How long a payload of records is, for a reader that does not know the device."""

from __future__ import annotations

import pytest

from migpool.errors import ProtocolError
from migpool.wire.records import (
    begins_with_record,
    config_record,
    data_record,
    end_payload,
    initial_data_sent,
    records_size,
    setup_payload,
)

PAYLOADS = [
    end_payload(),
    initial_data_sent(),
    b"".join(setup_payload()),
    b"".join(setup_payload(b"set-up")),
    b"".join([*data_record(b""), *data_record(b"abc"), end_payload()]),
    b"".join([*data_record(bytes(100)), initial_data_sent()]),
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_as_long_as_it_is_whatever_comes_behind(payload: bytes) -> None:
    assert records_size(payload + b"\x7e\0\0\0\1") == len(payload)
    assert begins_with_record(payload)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_cut_needs_more(payload: bytes) -> None:
    for cut in range(len(payload)):
        assert records_size(payload[:cut]) is None


@pytest.mark.parametrize("payload", [b"\0" * 8, b"".join(config_record(b"config")), b"\xff" * 8])
def test_what_is_no_record_of_known_length_is_an_error(payload: bytes) -> None:
    assert not begins_with_record(payload)
    with pytest.raises(ProtocolError):
        records_size(b"".join(data_record(b"x")) + payload)


def test_less_than_a_mark_is_no_record_yet() -> None:
    assert not begins_with_record(end_payload()[:7])
