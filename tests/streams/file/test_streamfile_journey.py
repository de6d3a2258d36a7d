"""A stream file is sent to ``receive --store`` with and without multifd, and is the same machine there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from migpool.errors import Cancelled, PeerError, ProtocolError, UsageError
from migpool.streams.file.fromfile import Sent, begins_as_a_stream, send_file
from migpool.streams.file.front import Front
from migpool.streams.file.tofile import receive_file
from migpool.streams.inspect.reading import inspect_bytes
from migpool.transport.address import Address
from migpool.wire.configuration import Configuration
from migpool.wire.ram import RamPages
from tests.support.made_machine import PAGE, machine_stream
from tests.support.other_streams import other
from tests.support.storing_thread import Receiver
from tests.support.thinned import every_value
from tests.support.wire_bytes import section_full

LIMIT = 10.0


def never() -> bool:
    return False


def send(path: Path, address: Address, channels: int, *, return_path: bool = True) -> Sent:
    return send_file(path, address, channels, uuid=None, return_path=return_path, limit=LIMIT, cancelled=never)


def loaded(stream: bytes) -> tuple[Configuration | None, dict[tuple[str, int], bytes], bytes]:
    """What a stream says of a machine: its configuration, its memory at last without zeros, its devices."""
    front = Front()
    front.feed(stream)
    found: Configuration | None = None
    memory: dict[tuple[str, int], bytes] = {}
    while (event := front.next_event()) is not None:
        if isinstance(event, Configuration):
            found = event
        if isinstance(event, RamPages):
            for address, content in event:
                memory[event.block, address] = bytes(PAGE) if content is None else bytes(content)
    return found, {where: content for where, content in memory.items() if any(content)}, bytes(front.rest or b"")


@pytest.mark.parametrize(("channels", "return_path"), every_value([0, 1, 3], [True, False]))
def test_what_is_stored_is_the_machine_that_was_sent(
    stream: bytes, tmp_path: Path, channels: int, return_path: bool
) -> None:
    (tmp_path / "sent").write_bytes(stream)
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, channels) as receiver:
        sent = send(tmp_path / "sent", address, channels, return_path=return_path)
    assert receiver.error is None
    assert receiver.stored is not None
    kept = (tmp_path / "kept").read_bytes()
    assert loaded(kept) == loaded(stream)
    if not channels:
        assert kept == stream
    assert sent.confirmed is receiver.stored.acknowledged is return_path
    assert sent.pages == receiver.stored.pages
    assert receiver.stored.size == len(kept)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept", "sent"]


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("name", ["s390", "power8-hash-table", "arm-1k", "openrisc", "tricore"])
def test_machines_with_other_pages_and_iterable_devices_make_the_journey_too(
    tmp_path: Path, name: str, channels: int
) -> None:
    stream = other(name)
    (tmp_path / "sent").write_bytes(stream)
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, channels) as receiver:
        send(tmp_path / "sent", address, channels)
    assert receiver.error is None
    kept = (tmp_path / "kept").read_bytes()
    assert loaded(kept) == loaded(stream)
    assert device_sections(kept) == device_sections(stream)


def device_sections(stream: bytes) -> list[tuple[str, str, int]]:
    return [(one.kind, one.idstr, one.size) for one in inspect_bytes(stream).sections if one.idstr != "ram"]


def test_the_made_up_machine_needs_the_last_copy_of_a_page() -> None:
    memory = loaded(machine_stream())[1]
    assert memory["pc.ram", 299 * PAGE][:8] == (2000).to_bytes(8, "big")
    assert ("pc.ram", PAGE) not in memory


def cut_short(stream: bytes) -> bytes:
    return stream[:-1]


def without_its_ram(stream: bytes) -> bytes:
    begin = stream.index(b"\x01\x00\x00\x00\x02\x03ram")
    return stream[:begin] + b"".join(map(bytes, section_full(3, "early", b"x"))) + stream[begin:]


@pytest.mark.parametrize(
    ("damage", "says"),
    [(cut_short, "it has been cut"), (without_its_ram, "this goes without multifd only")],
)
def test_a_damaged_file_fails_at_both_ends_and_nothing_is_stored(
    tmp_path: Path, damage: Callable[[bytes], bytes], says: str
) -> None:
    (tmp_path / "sent").write_bytes(damage(machine_stream()))
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, 2) as receiver, pytest.raises(ProtocolError, match=says):
        send(tmp_path / "sent", address, 2)
    # A source that has gone before all its connections were looked at is nobody, and another one is waited for.
    assert isinstance(receiver.error, PeerError | Cancelled)
    assert [file.name for file in tmp_path.iterdir()] == ["sent"]


def test_a_stored_machine_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"precious")
    with pytest.raises(UsageError, match="is not overwritten"):
        receive_file(
            tmp_path / "kept",
            Address(path=str(tmp_path / "s")),
            0,
            limit=LIMIT,
            cancelled=never,
            listening=lambda _: None,
        )
    assert (tmp_path / "kept").read_bytes() == b"precious"


def test_only_a_stream_is_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(machine_stream())
    (tmp_path / "scenario.toml").write_text("devices = []")
    assert begins_as_a_stream(tmp_path / "stream")
    assert not begins_as_a_stream(tmp_path / "scenario.toml")
    assert not begins_as_a_stream(tmp_path / "nothing")
