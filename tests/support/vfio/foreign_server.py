"""A vfio-user server as other people write them, with every habit that was seen of their resets and states.

It keeps to the protocol and no more: no state of peer-to-peer, no size of the state, no capability of migpool's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from migpool_plugins.vfio.migration import Flags, MigrationState, path
from tests.support.vfio.vfiouser_rig import FEATURE, GET, READ, RESET, SET, VERSION, WRITE, Handler, HandServer

M = MigrationState
Reset = Literal["empties", "keeps the state", "refused in STOP", "refused", "late"]
RESETS: tuple[Reset, ...] = ("empties", "keeps the state", "refused in STOP", "refused", "late")
"""What a reset comes to: all that it should; the registers alone; an error in STOP and STOP_COPY, the registers alone
elsewhere; an error; all that it should, but without an answer."""


@dataclass
class ForeignDevice:
    """A device that consists of bytes.

    Arguments:
        content: what it consists of.
        precopy: how many of them it gives while it runs.
        reset: what a reset comes to.
        held: the migration state that it does not leave by a request.
        deaf_to: a migration state to which it says yes, and stays where it is.

    Attributes:
        came: what has come in RESUMING, of which it consists once it leaves that.
        running: how many bytes were asked for while it ran.
        walked: the states that it went through.
    """

    content: bytes = b""
    precopy: int = 0
    reset: Reset = "refused in STOP"
    held: MigrationState | None = None
    deaf_to: MigrationState | None = None
    state: MigrationState = M.RUNNING
    came: bytes = b""
    offset: int = 0
    running: int = 0
    walked: list[MigrationState] = field(default_factory=list)

    @property
    def flags(self) -> Flags:
        return Flags.STOP_COPY | (Flags.PRE_COPY if self.precopy else Flags(0))

    def go(self, target: int) -> int:
        """Go to a state; returns an error number."""
        way = path(self.state, M(target), self.flags)
        if way is None or (way and self.state is self.held):
            return errno.EINVAL
        if M(target) is self.deaf_to:
            return 0
        for there in way:
            if self.state is M.RESUMING:
                self.content = self.came
            if there is M.RESUMING:
                self.came = b""
            if there in (M.PRE_COPY, M.STOP_COPY) and self.state is not M.PRE_COPY:
                self.offset = 0
            self.state = there
            self.walked.append(there)
        return 0

    def be_reset(self) -> int:
        if self.reset == "refused" or (self.reset == "refused in STOP" and self.state in (M.STOP, M.STOP_COPY)):
            return errno.EINVAL
        self.content = b""
        if self.reset in ("empties", "late"):
            self.state, self.came, self.offset = M.RUNNING, b"", 0
        return 0

    def read(self, size: int) -> bytes | None:
        if self.state not in (M.PRE_COPY, M.STOP_COPY):
            return None
        end = self.precopy if self.state is M.PRE_COPY else len(self.content)
        part = self.content[self.offset : min(end, self.offset + size)]
        self.offset += len(part)
        self.running += len(part) * (self.state is M.PRE_COPY)
        return part


class ForeignServer(HandServer):
    """Serves a :class:`ForeignDevice`, to one client after the other.

    Attributes:
        text: the capabilities that a VERSION is answered with, as JSON; empty for none.
    """

    def __init__(self, path: Path, device: ForeignDevice, misbehave: Handler | None = None) -> None:
        self.foreign = device
        self.text = json.dumps({"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20}})
        super().__init__(path, self._late if misbehave is None else misbehave)

    def _late(self, _server: object, _c: object, _n: int, command: int, _f: int, _p: bytes) -> bool:
        if command != RESET or self.foreign.reset != "late":
            return False
        self.foreign.be_reset()
        return True

    def carry_out(self, command: int, payload: bytes) -> tuple[int, bytes]:
        device = self.foreign
        match command:
            case 1:
                minor = min(2, struct.unpack_from("=HH", payload)[1])
                return 0, struct.pack("=HH", 0, minor) + (self.text.encode() + b"\0" if self.text else b"")
            case 13:
                return device.be_reset(), b""
            case 16:
                return self._feature(payload)
            case 17:
                part = device.read(struct.unpack("=II", payload)[1])
                if part is None:
                    return errno.EINVAL, b""
                return 0, struct.pack("=II", 8 + len(part), len(part)) + part
            case 18 if device.state is M.RESUMING:
                device.came += payload[8:]
                return 0, b""
        return errno.EINVAL, b""

    def _feature(self, payload: bytes) -> tuple[int, bytes]:
        device = self.foreign
        argsz, flags = struct.unpack_from("=II", payload)
        if flags == GET | 1:
            return 0, struct.pack("=IIQ", argsz, flags, int(device.flags))
        if flags == GET | 2:
            return 0, struct.pack("=IIIi", argsz, flags, int(device.state), -1)
        if flags == SET | 2:
            return device.go(struct.unpack_from("=I", payload, 8)[0]), payload[:16]
        return errno.EINVAL, b""


@contextlib.contextmanager
def foreign_server(path: Path, device: ForeignDevice, misbehave: Handler | None = None) -> Iterator[ForeignServer]:
    """A server at ``path`` until the block ends."""
    server = ForeignServer(path, device, misbehave)
    try:
        yield server
    finally:
        server.stop()


assert (VERSION, RESET, FEATURE, READ, WRITE) == (1, 13, 16, 17, 18)
