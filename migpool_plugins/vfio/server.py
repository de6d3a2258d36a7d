"""The device process: sockets and threads. Everything it imports is in the standard library or this package.

The main thread reads the root connection (standard input) and starts a thread for each device that is attached. When
the root connection ends, because the other process closed it, ended or was killed, the process exits at once, whatever
its threads wait for; so it never outlives the process it serves.

Connections are AF_UNIX ``SOCK_SEQPACKET``: one message is one packet, so there is no framing, and descriptors travel
with the packet they belong to. A message is a tuple as ``marshal`` writes it: both ends are the same interpreter with
the same code, and a config or a digest needs no other form than its bytes.

The root connection is the device process's standard input. On it come only messages that make a device, each with the
descriptor of the device's own connection; its end of file ends the process. On a device's connection every request is
answered in order::

    request   (7, "set_state", (3,))                  its number, and a method of DeviceState with its arguments
    reply     (7, "", None)                           what came back; with a data descriptor when one was opened
    reply     (7, "device" | "verification", "...")   why it was refused

The device speaks either through a data descriptor, or vfio-user: then the request ``connect``, which is no method of
the device, brings a connection for it, and a descriptor of the memory that its state is in; the others are only what
that protocol has no word for (the config, digests, why something was refused). A device with engines has a connection
in vfio-user for each as well, or a descriptor for each, which the request ``engine`` brings, and no such memory.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from migpool_plugins.vfio.content import BaseBlock
from migpool_plugins.vfio.engines import serve_engine
from migpool_plugins.vfio.profiles import MAX_MESSAGE, DeviceProfile, Fault
from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import Refusal, SharedLock, keep_time
from migpool_plugins.vfio.vfiouser.pci import PciFunction
from migpool_plugins.vfio.vfiouser.session import Session

_REQUESTS: Final = frozenset(
    (
        *("prepare", "where", "set_state", "data_size", "reset", "finish_save"),
        *("save_config", "load_config", "fingerprint", "verify", "why", "record"),
    )
)
"""The methods of :class:`DeviceState` that the migrating process may call."""


def serve(root: socket.socket) -> None:
    """Serve devices until the root connection ends."""
    keep_time()
    shared = SharedLock()
    bases: dict[int, BaseBlock] = {}
    while True:
        message, descriptors, _, _ = socket.recv_fds(root, MAX_MESSAGE, 1)
        if not message:
            return
        _idstr, _source, seed, _profile, _fault = made = marshal.loads(message)
        base = bases.setdefault(seed, BaseBlock(seed))
        connection = socket.socket(fileno=descriptors[0])
        threading.Thread(target=_serve_device, args=(connection, made, base, shared), daemon=True).start()


def _serve_device(connection: socket.socket, made: tuple[Any, ...], base: BaseBlock, shared: SharedLock) -> None:
    """Answer one device's requests in order, until its connection ends."""
    idstr, source, _seed, profile, fault = made
    device: DeviceState | Refusal
    with connection, contextlib.suppress(ConnectionError):
        try:
            device = DeviceState(
                idstr, DeviceProfile(*profile), base, source, shared, None if fault is None else Fault(*fault)
            )
        except (OSError, MemoryError):
            device = Refusal("the device process has no memory for the state: make size smaller")
        while message := connection.recv(MAX_MESSAGE):
            number, op, arguments = marshal.loads(message)
            opened: socket.socket | None = None
            memory = -1
            try:
                if isinstance(device, Refusal):
                    raise device
                kind, answer, opened = "", *_answer(device, op, arguments)
                memory = device.memory if op == "connect" else -1
            except Refusal as refusal:
                kind, answer = refusal.kind, refusal.text
            _send(connection, marshal.dumps((number, kind, answer)), opened, memory)
    if isinstance(device, DeviceState):
        device.reset()


def _answer(device: DeviceState, op: str, arguments: tuple[Any, ...]) -> tuple[Any, socket.socket | None]:
    """Carry out one request; returns the answer and the descriptor that goes with it, if any."""
    if op == "connect":
        return None, _connect(lambda ours: _serve_session(ours, device))
    if op == "engine":
        return None, _connect(lambda ours: serve_engine(ours, device.saving_parts, device.loading_parts))
    if op not in _REQUESTS:
        raise Refusal(f"the device process knows no request {op!r}")
    return getattr(device, op)(*arguments), device.take_descriptor()


def _connect(serve_connection: Callable[[socket.socket], None]) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    threading.Thread(target=serve_connection, args=(ours,), daemon=True).start()
    return theirs


def _serve_session(connection: socket.socket, device: DeviceState) -> None:
    with connection:
        Session(connection, device, PciFunction(device), placed=device.memory >= 0).run()


def _send(connection: socket.socket, message: bytes, opened: socket.socket | None, memory: int) -> None:
    if opened is None:
        connection.sendall(message)
        return
    with opened:
        socket.send_fds(connection, [message], [opened.fileno(), memory] if memory >= 0 else [opened.fileno()])


def main() -> None:
    """Serve the connection that is standard input, and exit."""
    serve(socket.socket(fileno=0))
    # Threads may be in the middle of a stalled write or a pause; nothing they do matters to anybody any more.
    os._exit(0)
