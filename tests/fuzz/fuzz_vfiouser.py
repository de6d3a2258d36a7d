"""vfio-user, fuzzed from both ends: our client is told what a server may say, our server what a client may.

An input for the client: a byte that chooses how it is used, then what the server says, connection by connection. An
input for the server: a byte likewise, then what the client says.
"""

from __future__ import annotations

import socket
import struct
import threading
from functools import cache
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vfio.backend import Interruption, NoAnswer
from migpool_plugins.vfio.content import BaseBlock
from migpool_plugins.vfio.device import VfioDevice
from migpool_plugins.vfio.migration import MigrationState
from migpool_plugins.vfio.profiles import DeviceProfile
from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import SharedLock
from migpool_plugins.vfio.vfiouser.backend import VfioUserBackend
from migpool_plugins.vfio.vfiouser.connect import Connect
from migpool_plugins.vfio.vfiouser.connection import Connection
from migpool_plugins.vfio.vfiouser.message import (
    HEADER,
    PART,
    Capabilities,
    Header,
    MessageError,
    MessageFlag,
    UserCommand,
    command,
    version,
)
from migpool_plugins.vfio.vfiouser.pci import PciFunction
from migpool_plugins.vfio.vfiouser.session import MAX_TRANSFER, Session
from tests.fuzz.fuzz_socket import NotingSocket, ScriptedSocket

__all__ = ["client_seeds", "commands", "replies", "server_seeds"]

AGAIN: Final = b"<again>"
"""Between what a server says in one connection and in the next."""
LOADS, SILENT, CUTS, DRIBBLES, PARTS = 1, 2, 4, 8, 16
"""What the first byte chooses: loading instead of saving, a server that is silent at the end instead of gone, writes
of 64 bytes, calls that move 7 bytes at the most, and for the server a device with engines."""
CONNECTIONS: Final = 8
LIMIT: Final = 0.001
"""Seconds that a server may be silent: it is waited for without a pause."""
SIZE: Final = 300
PROFILE: Final = DeviceProfile(SIZE, 128, precopy=True, initial_size=100)
ENGINES: Final = DeviceProfile(9000, 4096, engines=2)
LONGEST: Final = 500
"""Characters of an error: one line that a person reads."""


# ---------------------------------------------------------------------- the client


def replies(data: bytes) -> None:
    """What a server says to our client, while a device is saved or loaded, fails, and runs on."""
    how, scripts = data[0] if data else 0, iter(data[1:].split(AGAIN)[:CONNECTIONS])
    made: list[ScriptedSocket] = []

    def connect(stopped: Interruption, again: bool) -> Connection:
        del again
        script = next(scripts, None)
        if script is None:
            raise NoAnswer("nobody listens any more")
        made.append(_scripted(script, how))
        return Connection(made[-1], "server", LIMIT, stopped)  # type: ignore[arg-type]  # all of a socket that it uses

    _use(connect, how)
    for each in made:
        assert each.closed, "a connection was left open"
        _messages(each.sent)


def _use(connect: Connect, how: int, state: bytes = b"") -> bytes:
    """Open a device, and save or load it; returns what was saved."""
    state = state or bytes(SIZE)
    saved = bytearray()
    try:
        backend = VfioUserBackend(connect, "server", write_size=64 if how & CUTS else None)
    except DeviceError as error:
        _clear(error)
        return b""
    device = VfioDevice("d/vfio", backend, "destination" if how & LOADS else "source")
    try:
        if how & LOADS:
            _load(device, state)
        else:
            _save(device, saved)
    except DeviceError as error:
        _clear(error)
    try:
        device.wake()
        device.resume()
    except DeviceError as error:
        _clear(error)
    device.close()
    return bytes(saved)


def _save(device: VfioDevice, saved: bytearray) -> None:
    buffer = memoryview(bytearray(128))
    device.save_setup()
    while device.pending().precopy and (count := device.iterate(buffer)):
        saved += buffer[:count]
    device.quiesce()
    device.stop()
    while count := device.save_state(buffer):
        saved += buffer[:count]
    device.save_config()


def _load(device: VfioDevice, state: bytes) -> None:
    device.load_setup(b"")
    for begin in range(0, len(state), 128):
        device.load_state(memoryview(state)[begin : begin + 128])
    device.load_config(b"vfiodone" + len(state).to_bytes(8, "big"))
    device.wake()
    device.start()
    device.verify()


def _clear(error: DeviceError) -> None:
    text = str(error)
    assert text, "an error without a message"
    assert text.isprintable(), f"an error of more than one line, or with control characters: {text!r}"
    assert len(text) <= LONGEST, f"an error of {len(text)} characters: {text}"


# ---------------------------------------------------------------------- the server


def commands(data: bytes) -> None:
    """What a client says to our server: whole messages are answered, each once and in order."""
    how, script = data[0] if data else 0, data[1:]
    connection, device = _scripted(script, how, patience=2), _device(ENGINES if how & PARTS else PROFILE)
    told: list[str] = []
    Session(connection, device, PciFunction(device), told.append).run()  # type: ignore[arg-type]  # all of a socket that it uses
    connection.close()
    device.reset()
    assert device.where() == MigrationState.RUNNING
    for text in told:
        assert text.isprintable(), f"more than one line is told: {text!r}"
        assert len(text) <= LONGEST
    said = _messages(connection.sent)
    assert sum(bool(each.refusal) for each in said) <= len(told), "a request was refused without a line"
    answered = [(each.number, each.command) for each in said]
    whole, cut = _wanted(script)
    assert answered in (whole, whole + cut), "not every command was answered, once and in order"


def _wanted(script: bytes) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The commands that must be answered; and the last one, if it did not come whole: it may be."""
    whole: list[tuple[int, int]] = []
    at = 0
    while at + HEADER.size <= len(script):
        try:
            header = Header.parse(script[at : at + HEADER.size], HEADER.size + PART.size + MAX_TRANSFER)
        except MessageError:
            break
        if header.is_reply:
            break
        at += header.size
        wanted = [(header.number, header.command)] if header.wants_reply else []
        if at > len(script):
            return whole, wanted
        whole += wanted
    return whole, []


# ---------------------------------------------------------------------- both


def _scripted(script: bytes, how: int, patience: int | None = None) -> ScriptedSocket:
    most = 7 if how & DRIBBLES else 1 << 30
    return ScriptedSocket(script, silent=bool(how & SILENT), most=most, patience=patience)


def _messages(data: bytes | bytearray) -> list[Header]:
    """Check that ``data`` consists of messages, and return their headers; the last one may have been cut."""
    found: list[Header] = []
    at = 0
    while at + HEADER.size <= len(data):
        header = Header.parse(data[at : at + HEADER.size], 1 << 30)
        assert not header.refusal or (header.is_reply and header.errno)
        found.append(header)
        at += header.size
    return found


@cache
def _base() -> BaseBlock:
    return BaseBlock(1)


def _device(profile: DeviceProfile = PROFILE) -> DeviceState:
    return DeviceState("d/vfio", profile, _base(), False, SharedLock(), None, configured=False)


class _Server:
    """Our server, at as many connections as are asked for.

    Attributes:
        ends: of the connections, the client's and the server's, each of which notes what it receives.
    """

    def __init__(self, device: DeviceState) -> None:
        self._device = device
        self._threads: list[threading.Thread] = []
        self.ends: list[tuple[NotingSocket, NotingSocket]] = []

    def connect(self, stopped: Interruption, _again: bool) -> Connection:
        ours, theirs = (NotingSocket(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
        session = Session(theirs, self._device, PciFunction(self._device))  # type: ignore[arg-type]  # likewise
        self._threads.append(threading.Thread(target=session.run))
        self._threads[-1].start()
        self.ends.append((ours, theirs))
        return Connection(ours, "server", 20.0, stopped)  # type: ignore[arg-type]  # all of a socket that it uses

    def end(self) -> None:
        """Wait until every client has gone."""
        for thread, (_, theirs) in zip(self._threads, self.ends, strict=True):
            thread.join()
            theirs.close()


@cache
def _recorded() -> tuple[tuple[int, bytes, bytes], ...]:
    """Our client and our server with each other: how it was used, what the server said, and what the client did."""
    found = []
    device = _device()
    state = b""
    for how in (0, CUTS, LOADS, LOADS | CUTS):
        server = _Server(device)
        state = _use(server.connect, how, state) or state
        server.end()
        ((ours, theirs),) = server.ends
        found.append((how, bytes(ours.received), bytes(theirs.received)))
    assert len(state) == SIZE
    return tuple(found)


@cache
def _recorded_parts() -> bytes:
    """What our client says to a device with engines, saved and loaded: its connections one after the other in one."""
    server = _Server(_device(ENGINES))
    backend = VfioUserBackend(server.connect, "server", engines=2)
    said, seen = bytearray(), 0
    buffer = memoryview(bytearray(ENGINES.chunk))
    parts: list[tuple[int, bytes]] = []
    for target in (MigrationState.STOP_COPY, MigrationState.RESUMING):
        backend.set_state(target)
        control = bytes(server.ends[0][1].received)
        said += control[seen:]
        seen = len(control)
        engine = backend.open_engine()
        if target is MigrationState.STOP_COPY:
            while part := engine.read(buffer):
                parts.append((part.tag, bytes(buffer[: part.length])))
        else:
            for tag, data in parts:
                engine.write(tag, memoryview(data))
        engine.close()
        moved = bytes(server.ends[-1][1].received)
        said += moved[_frame(moved, 1) :]
    backend.set_state(MigrationState.RUNNING)
    backend.close()
    server.end()
    assert len(parts) == 3
    return bytes(said + server.ends[0][1].received[seen:])


def _function_requests() -> bytes:
    """What a VMM asks of a PCI function: sizes, the header, the BAR, and interrupts."""
    asked = (
        (UserCommand.GET_INFO, "IIII", (16, 0, 0, 0)),
        *((UserCommand.GET_REGION_INFO, "IIIIQQ", (32, 0, index, 0, 0, 0)) for index in range(10)),
        *((UserCommand.GET_IRQ_INFO, "IIII", (16, 0, index, 0)) for index in range(6)),
        (UserCommand.SET_IRQS, "IIIII", (20, 0x24, 3, 0, 1)),
        (UserCommand.SET_IRQS, "IIIII", (20, 0x21, 0, 0, 0)),
        (UserCommand.REGION_WRITE, "QIII", (0x10, 7, 4, 0xFFFFFFFF)),
        (UserCommand.REGION_READ, "QII", (0, 7, 256)),
        (UserCommand.REGION_READ, "QII", (0, 0, 16)),
        (UserCommand.DMA_MAP, "IIQQQ", (32, 3, 0, 0, 4096)),
        (UserCommand.DMA_UNMAP, "IIQQ", (24, 0, 0, 4096)),
    )
    payloads = [(what, struct.pack(f"={form}", *values)) for what, form, values in asked]
    return b"".join(command(n, what, len(payload)) + payload for n, (what, payload) in enumerate(payloads, 2))


def client_seeds() -> list[bytes]:
    """For the client: what our server says, cut, in several connections, refused, asked back, and without its own
    capabilities."""
    seeds = []
    for how, said, _ in _recorded():
        first = _frame(said, 1)
        seeds += [bytes([how]) + said, bytes([how | SILENT | DRIBBLES]) + said]
        seeds.append(bytes([how]) + said[: len(said) // 2] + AGAIN + said[:first] + _renumbered(said[first:]))
        asked = HEADER.pack(9, UserCommand.DMA_READ, HEADER.size + 16, 0, 0) + bytes(16)
        seeds.append(bytes([how]) + said[:first] + asked + said[first:])
        plain = b'\0\0\2\0{"capabilities":{"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0'
        answer = HEADER.pack(1, UserCommand.VERSION, HEADER.size + len(plain), MessageFlag.REPLY, 0) + plain
        seeds.append(bytes([how]) + answer + said[first:])
        refused = HEADER.pack(2, UserCommand.DEVICE_FEATURE, HEADER.size, MessageFlag.REPLY | MessageFlag.ERROR, 22)
        seeds.append(bytes([how]) + said[:first] + refused)
    return seeds


def _frame(said: bytes, count: int) -> int:
    """Where the message after the first ``count`` ones begins."""
    at = 0
    for _ in range(count):
        at += Header.parse(said[at : at + HEADER.size], 1 << 30).size
    return at


def _renumbered(said: bytes) -> bytes:
    """The messages, numbered as the first ones after the agreement."""
    out, at, number = bytearray(said), 0, 2
    while at + HEADER.size <= len(said):
        out[at : at + 2] = number.to_bytes(2, "little")
        at += Header.parse(said[at : at + HEADER.size], 1 << 30).size
        number += 1
    return bytes(out)


def server_seeds() -> list[bytes]:
    """For the server: what our client says, to a device with engines too, and a VMM; at once and in pieces."""
    vmm = version(Capabilities())
    scripts = [
        *((0, said) for _, _, said in _recorded()),
        (PARTS, _recorded_parts()),
        (0, command(1, UserCommand.VERSION, len(vmm)) + vmm + _function_requests()),
    ]
    return [bytes([how | choice]) + said for how, said in scripts for choice in (0, SILENT | DRIBBLES)]
