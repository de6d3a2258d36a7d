"""The device process: sockets and threads. Everything it imports is in the standard library or this package.

The main thread reads the root connection (standard input) and starts a thread for each device that is attached. When
the root connection ends, because the other process closed it, ended or was killed, the process exits at once, whatever
its threads wait for; so it never outlives the process it serves.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from migpool_plugins.vfio.content import BaseBlock
from migpool_plugins.vfio.control import MAX_MESSAGE, Refusal, decode, encode
from migpool_plugins.vfio.migration import MigrationState
from migpool_plugins.vfio.pacing import SharedLock, sharpen_timers
from migpool_plugins.vfio.profiles import DeviceProfile, Fault
from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.vfiouser.session import Session


def serve(root: socket.socket) -> None:
    """Serve devices until the root connection ends.

    Arguments:
        root: the root connection; on it come the ``attach`` messages.
    """
    sharpen_timers()
    shared = SharedLock()
    bases: dict[int, BaseBlock] = {}
    while True:
        message, descriptors, _, _ = socket.recv_fds(root, MAX_MESSAGE, 1)
        if not message:
            return
        fields, _ = decode(message)
        seed = _number(fields, "seed")
        base = bases.setdefault(seed, BaseBlock(seed))
        connection = socket.socket(fileno=descriptors[0])
        threading.Thread(target=_serve_device, args=(connection, fields, base, shared), daemon=True).start()


def _serve_device(connection: socket.socket, fields: dict[str, object], base: BaseBlock, shared: SharedLock) -> None:
    """Answer one device's requests in order, until its connection ends."""
    with connection:
        device: DeviceState | Refusal
        try:
            device = DeviceState(
                idstr=_text(fields, "idstr"),
                profile=DeviceProfile(**_table(fields, "profile")),
                base=base,
                source=fields.get("side") == "source",
                shared=shared,
                fault=Fault(**_table(fields, "fault")) if fields.get("fault") else None,
            )
        except (OSError, MemoryError):
            device = Refusal("the device process has no memory for the state: make size smaller")
        while True:
            try:
                message = connection.recv(MAX_MESSAGE)
            except ConnectionError:
                message = b""
            if not message:
                break
            request, payload = decode(message)
            reply: dict[str, object] = {"id": request.get("id")}
            data: bytes = b""
            opened: socket.socket | None = None
            try:
                if isinstance(device, Refusal):
                    raise device
                data, opened = _answer(device, request, payload, reply)
            except Refusal as refusal:
                reply |= {"error": refusal.text, "kind": refusal.kind}
            try:
                _send(connection, encode(reply, data), opened)
            except ConnectionError:
                break
    if isinstance(device, DeviceState):
        device.reset()


def _answer(
    device: DeviceState, request: dict[str, object], payload: bytes, reply: dict[str, object]
) -> tuple[bytes, socket.socket | None]:
    """Carry out one request; returns the reply's payload and the descriptor that goes with it, if any."""
    match request.get("op"):
        case "ready":
            device.prepare()  # The answer comes when the state has been made, which is what the question is about.
        case "connect":
            return b"", _connect(device)
        case "state":
            reply["state"] = int(device.where())
        case "set-state":
            device.set_state(MigrationState(_number(request, "state")))
            opened = device.opened
            return b"", None if opened is None else opened.client_end
        case "data-size":
            reply["size"] = device.data_size()
        case "reset":
            device.reset()
        case "finish-save":
            reply["sent"] = device.finish_save()
        case "save-config":
            return device.save_config(), None
        case "load-config":
            device.load_config(payload)
        case "fingerprint":
            return device.fingerprint(), None
        case "verify":
            device.verify()
        case "why":
            device.why()
        case "record":
            reply["record"] = device.record()[-_number(request, "last") :]
        case unknown:
            raise Refusal(f"the device process knows no request {unknown!r}")
    return b"", None


def _connect(device: DeviceState) -> socket.socket:
    """Begin to serve vfio-user on a new connection; returns the client's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def serve_connection() -> None:
        with ours:
            Session(ours, device).run()

    threading.Thread(target=serve_connection, daemon=True).start()
    return theirs


def _send(connection: socket.socket, message: bytes, opened: socket.socket | None) -> None:
    if opened is None:
        connection.sendall(message)
        return
    with opened:
        socket.send_fds(connection, [message], [opened.fileno()])


def _number(fields: dict[str, object], key: str) -> int:
    value = fields[key]
    assert isinstance(value, int)
    return value


def _text(fields: dict[str, object], key: str) -> str:
    value = fields[key]
    assert isinstance(value, str)
    return value


def _table(fields: dict[str, object], key: str) -> dict[str, Any]:
    value = fields[key]
    assert isinstance(value, dict)
    return value


def main() -> None:
    """Serve the connection that is standard input, and exit."""
    serve(socket.socket(fileno=0))
    # Threads may be in the middle of a stalled write or a pause; nothing they do matters to anybody any more.
    os._exit(0)
