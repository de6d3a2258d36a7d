"""State of VFIO devices over multifd channels becomes what a stream without them has; what is damaged is refused."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from migpool.errors import MigpoolError
from migpool.streams.file.tofile import Stored
from migpool.streams.inspect.reading import inspect_bytes
from migpool.streams.inspect.summary import Framing
from migpool.transport.address import Address
from migpool.wire.commands import open_return_path, switchover_start
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.devicestate import DeviceStateHeader
from migpool.wire.multifd import initial_packet
from migpool.wire.ram import RamBlock, block_list, multifd_flush, ram_section_end
from migpool.wire.ramheader import sync_header
from migpool.wire.records import Mark, data_record, end_payload, frame_config, setup_payload
from migpool.wire.returnpath import Message, ReturnPathReader, Shut
from migpool.wire.sections import Kind, SectionHead, head_bytes, section, section_end, section_part
from migpool.wire.stream import eof, header, vm_description
from migpool.wire.unread import Buffer
from migpool.wire.vmdesc import find
from tests.support.made_machine import PAGE, machine_stream
from tests.support.qemu_source import wait_until_read
from tests.support.storing_thread import LIMIT, Receiver
from tests.support.wire_bytes import section_full

RAM = SectionHead(Kind.START, 2, "ram", 0, 4)
READY = int(Mark.CONFIG_LOAD_READY).to_bytes(8, "big")


def flat(*buffers: Sequence[Buffer] | Buffer) -> bytes:
    """Bytes of buffers and of lists of them."""
    return b"".join(
        bytes(one) if isinstance(one, bytes | bytearray | memoryview) else b"".join(map(bytes, one)) for one in buffers
    )


@dataclass
class Device:
    """A VFIO device: chunks of its state, and its config."""

    number: int
    chunks: list[bytes]
    config: bytes
    mark: bytes = end_payload()

    @property
    def head(self) -> SectionHead:
        return SectionHead(Kind.START, 10 + self.number, f"0000:00:{self.number:02x}.0/vfio", 0, 1)

    def packets(self) -> list[bytes]:
        """All that comes over multifd, in order."""
        packet = DeviceStateHeader(self.head.idstr)
        found = []
        for index, chunk in enumerate([*self.chunks, flat(frame_config(self.config))]):
            packet.pack(index, len(chunk), config=index == len(self.chunks))
            found.append(bytes(packet.buffer) + chunk)
        return found


def main_channel(devices: Sequence[Device], *, converted: bool) -> bytes:
    """The main channel as it comes, or as it is to be stored."""
    between = b"" if converted else multifd_flush()
    commands = b"" if converted else open_return_path()
    full = [flat(frame_config(device.config)) if converted else device.mark for device in devices]
    described = [
        {"name": device.head.idstr, "instance_id": 0, "vmsd_name": "x", "version": 1}
        | {"fields": [{"name": "data", "type": "buffer", "size": len(payload)}]}
        for device, payload in zip(devices, full, strict=True)
    ]
    text = json.dumps({"page_size": PAGE, "devices": described}).encode()
    return flat(
        header(),
        configuration(Configuration("made-up-10.0")),
        commands,
        [head_bytes(RAM), block_list([RamBlock("pc.ram", 64 * PAGE)]), between, ram_section_end(2)],
        *(section(device.head, setup_payload()) for device in devices),
        *(section_part(device.head.section_id, [*data_record(b"first"), end_payload()]) for device in devices),
        switchover_start(),
        [head_bytes(replace(RAM, kind=Kind.END)), between, ram_section_end(2)],
        *(
            section_part(device.head.section_id, [*data_record(chunk), end_payload()])
            for device in devices
            for chunk in (device.chunks if converted else ())
        ),
        *(section_end(device.head.section_id, end_payload()) for device in devices),
        *(
            section(replace(device.head, kind=Kind.FULL), payload)
            for device, payload in zip(devices, full, strict=True)
        ),
        eof(),
        vm_description(text),
    )


def stored(
    tmp_path: Path,
    devices: Sequence[Device],
    channels: Sequence[Sequence[bytes]],
    *,
    ends: bool = True,
    held: bool = False,
) -> tuple[Stored | None, MigpoolError | None, list[Message]]:
    """Send a machine whose device packets come on these channels.

    Arguments:
        ends: whether the channels are closed before the main one.
        held: whether what is behind RAM's blocks on the main channel comes only after the packets, and these before
            the last SYNC, as a source has it whose main channel's buffer was not full when its devices began.
    """
    address = Address(path=str(tmp_path / "s"))
    main = main_channel(devices, converted=False)
    first = main.index(flat(section(devices[0].head, setup_payload()))) if held else len(main)
    reader = ReturnPathReader()
    with Receiver(tmp_path / "kept", address, len(channels), 2.0) as receiver, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(len(channels) + 1)]
        for sock in socks:
            sock.settimeout(LIMIT)
            sock.connect(str(tmp_path / "s"))
        socks[0].sendall(main[:first])
        syncs = [sync_header(1), sync_header(2)]
        for number in range(len(channels)):
            socks[number + 1].sendall(flat(initial_packet(number), syncs[: 1 if held else 2]))
        for number, packets in enumerate(channels):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for packet in [*packets, *syncs[1 if held else 2 :]]:
                    socks[number + 1].sendall(packet)
                if held:
                    wait_until_read(socks[number + 1])
            if ends:
                socks[number + 1].shutdown(socket.SHUT_WR)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socks[0].sendall(main[first:])
            socks[0].shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while data := socks[0].recv(4096):
                reader.feed(data)
    return receiver.stored, receiver.error, list(reader.events())


def shuffled(devices: Sequence[Device], channels: int, seed: int) -> list[list[bytes]]:
    """The devices' packets over channels, in any order."""
    chance = random.Random(seed)
    every = [packet for device in devices for packet in device.packets()]
    chance.shuffle(every)
    spread: list[list[bytes]] = [[] for _ in range(channels)]
    for packet in every:
        chance.choice(spread).append(packet)
    return spread


def some(seed: int, *, mark: bytes = end_payload()) -> list[Device]:
    """Devices of which some have no state, and one has a chunk of the size of QEMU's."""
    chance = random.Random(seed)
    found = [
        Device(
            n, [chance.randbytes(chance.choice([1, 77, 5000])) for _ in range(chance.randrange(9))], b"c%d" % n, mark
        )
        for n in range(chance.randint(1, 4))
    ]
    found[0].chunks.append(chance.randbytes(1 << 20))
    found[-1].config = chance.randbytes(4116)
    return found


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_the_main_channel_would_have_had(tmp_path: Path, seed: int, held: bool) -> None:
    devices = some(seed, mark=READY if seed % 2 else end_payload())
    kept, error, said = stored(tmp_path, devices, shuffled(devices, 1 + seed % 3, seed), held=held)
    assert error is None
    assert kept is not None
    assert [type(message) for message in said][-1:] == [Shut]
    data = (tmp_path / "kept").read_bytes()
    wanted = main_channel(devices, converted=True)
    assert data[: find(data)[0]] == wanted[: find(wanted)[0]]
    assert json.loads(find(data)[1]) == json.loads(find(wanted)[1])
    assert inspect_bytes(data).problem is None
    assert kept.size == len(data)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept"]


DEVICE = Device(1, [b"zero", b"one", b"two"], b"config")
OTHER = Device(2, [b"x"], b"config")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda packets: [*packets[:1], *packets[2:]], "0000:00:01.0/vfio (0): chunk 1 of 3 has not come"),
        (lambda packets: packets[:-1], "0000:00:01.0/vfio (0): its config has not come"),
        (lambda _: [], "0000:00:01.0/vfio (0): its config has not come"),
        (lambda packets: [packets[1], *packets], "each chunk of '0000:00:01.0/vfio' once, the config last, found 1"),
        (lambda packets: [Device(1, [b"4"] * 5, b"").packets()[4], *packets], "the config last, found 3"),
        (lambda packets: [*OTHER.packets(), *packets], "a VFIO device that has begun, found that of '0000:00:02"),
        (lambda packets: [packets[0][:-3]], "device state packet payload"),
    ],
    ids=["a chunk", "the config", "all", "a chunk twice", "a chunk behind the config", "no device", "cut"],
)
@pytest.mark.parametrize(("ends", "held"), [(True, False), (False, False), (True, True)])
def test_what_lacks_something_is_refused_and_the_machine_stays(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], words: str, ends: bool, held: bool
) -> None:
    kept, error, said = stored(tmp_path, [DEVICE], [change(DEVICE.packets())], ends=ends, held=held)
    assert kept is None
    assert error is not None
    otherwise = "magic" if held else "has not come" if not ends else words  # a SYNC follows what was cut
    assert words in str(error) or otherwise in str(error)
    assert said == [] or said[-1] == Shut(1, said[-1].offset)
    assert list(tmp_path.iterdir()) == []


def test_of_devices_that_have_not_begun_there_may_be_only_so_many(tmp_path: Path) -> None:
    packets = [Device(number, [], b"c").packets()[0] for number in range(1 << 13)]
    kept, error, _ = stored(tmp_path, [DEVICE], [packets], held=True)
    assert kept is None
    assert "a VFIO device that has begun, found that of '0000:00:1000.0" in str(error)


# ---------------------------------------------------------------------- damage


def send_damaged(tmp_path: Path, stream: bytes) -> MigpoolError | None:
    """What a destination that stores says of a stream."""
    address = Address(path=str(tmp_path / "s"))
    with Receiver(tmp_path / "kept", address, 0) as receiver, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LIMIT)
        sock.connect(str(tmp_path / "s"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(stream)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    return receiver.error


def test_every_shift_inside_the_devices_is_found(tmp_path: Path, stream: bytes) -> None:
    """Bytes that are too many or too few move what stands behind them; a footer is no longer where it was."""
    found = inspect_bytes(stream)
    sections = [one for one in found.sections if one.kind == "FULL" and one.framing is Framing.DESCRIBED and one.size]
    chance = random.Random(1)
    for number in range(16 if sections else 0):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = chance.choice(sections)
        at = one.offset + chance.randrange(1, 14 + len(one.idstr) + one.size)
        size = chance.choice([1, 7, 512])
        damaged = stream[:at] + (stream[at + size :] if number % 2 else chance.randbytes(size) + stream[at:])
        error = send_damaged(folder, damaged)
        assert error is not None, (one, at, size, number % 2)
        assert list(folder.iterdir()) == []


def test_a_damaged_footer_is_told_with_its_place(tmp_path: Path) -> None:
    stream = machine_stream()
    device = flat(section_full(5, "device", b"\x00\x06\x00\x00\x00\x02{}" + bytes(range(256))))
    at = stream.index(device) + len(device) - 5
    error = send_damaged(tmp_path, stream[:at] + b"\x7f" + stream[at + 1 :])
    assert error is not None
    assert str(error).startswith("payload of FULL section 5 of 'device' (0) at byte")
