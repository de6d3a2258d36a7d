"""The server's side of one vfio-user connection: reads commands, has the device carry them out, answers.

The device is an emulated one (:class:`migpool_plugins.vfio.state.DeviceState`), and to a VMM a PCI function
(:class:`migpool_plugins.vfio.vfiouser.pci.PciFunction`). It has no use for guest memory: what belongs to that is
answered, and nothing else. Errors are answered with a bare header and the connection goes on; only bytes that are no
message end it.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from errno import EINVAL, ENOTSUP, EPROTO
from typing import Final

from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import Refusal, drain, limit_waits
from migpool_plugins.vfio.vfiouser.features import feature
from migpool_plugins.vfio.vfiouser.message import (
    ASKED,
    DATA,
    HEADER,
    INFO,
    INFO_FLAGS,
    MAX_VERSION,
    PART,
    PLACE,
    PLACED,
    Capabilities,
    Header,
    MessageError,
    UserCommand,
    parse_version,
    reply,
    version,
)
from migpool_plugins.vfio.vfiouser.pci import INTERRUPTS, REGIONS, PciFunction

MAX_TRANSFER: Final = 4 << 20
"""Bytes of data that one message may carry here; a client may propose less for what it is sent."""
_MOST: Final = HEADER.size + PART.size + MAX_TRANSFER
MESSAGE_LIMIT: Final = 30.0
"""Seconds that the rest of a message may take to come once it has begun, and an answer to be taken."""
_SMALL: Final = 64 << 10
_DMA_MAP: Final = struct.Struct("=IIQQQ")
_DMA_UNMAP: Final = struct.Struct("=IIQQ")


class Session:
    """One connection of one client, closed by who made it.

    Arguments:
        connection: the client's.
        device: whose migration it asks for.
        function: the same device as a VMM sees it.
        refused: is told of every refusal, in one line.
        claim: is called before the migration's state changes or its data move; a :class:`Refusal` if that is not for
            this client now.
        placed: whether the client has the memory that the state is in.

    Attributes:
        agreed: whether the client has said which version it speaks.
    """

    def __init__(
        self,
        connection: socket.socket,
        device: DeviceState,
        function: PciFunction,
        refused: Callable[[str], None] | None = None,
        claim: Callable[[], None] | None = None,
        placed: bool = False,
    ) -> None:
        self._connection = connection
        # As much as the system allows: a MiB then takes fewer turns between the two processes.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_TRANSFER)
        self._device = device
        self._told = refused
        self._claim = claim or (lambda: None)
        limit_waits(connection, MESSAGE_LIMIT)
        self.agreed = False
        self._parts = 0
        self._most_read = 0
        self._left = 0
        self._head = memoryview(bytearray(HEADER.size))
        self._data_head = memoryview(bytearray(DATA.size))
        self._part_head = memoryview(bytearray(PART.size))
        self._asked_head = memoryview(bytearray(ASKED.size))
        self._placed_head = memoryview(bytearray(PLACED.size))
        self._moves: dict[int, Callable[[Header], bool]] = {
            UserCommand.MIG_DATA_WRITE: self._write,
            UserCommand.MIG_DATA_READ: self._read,
        }
        self._answers: dict[int, Callable[[bytes], bytes]] = {
            UserCommand.VERSION: self._version,
            UserCommand.DEVICE_FEATURE: self._feature,
            UserCommand.GET_INFO: self._info,
            UserCommand.DMA_MAP: self._dma_map,
            UserCommand.DMA_UNMAP: self._dma_unmap,
            UserCommand.RESET: self._reset,
            **function.answers,
        }
        if placed:
            self._moves |= {
                UserCommand.MIG_PLACED_READ: self._read_placed,
                UserCommand.MIG_PLACED_WRITE: self._write_placed,
            }

    def run(self) -> None:
        """Answer until the client goes away or sends what is no message."""
        try:
            while self._next():
                header = Header.parse(self._head, _MOST)
                if header.is_reply:
                    raise MessageError("a reply came, and nothing had been asked")
                self._left = header.rest
                try:
                    whole = self._moves.get(header.command, self._answer)(header)
                except Refusal as refusal:
                    whole = drain(self._left, self._receive) and self._refuse(header, refusal)
                if not whole:
                    return
        except MessageError as error:
            self._tell(f"the client's connection is ended: {error}")
        except OSError:
            return  # The client is gone, or takes no answer.

    def _next(self) -> bool:
        """Receive a header, for which a client has any time; false at the end of the connection."""
        while True:
            try:
                count = self._connection.recv_into(self._head, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                continue
            return count == HEADER.size or (count > 0 and self._receive(self._head[count:]))

    def _receive(self, view: memoryview) -> bool:
        """Fill ``view`` with more of a message that has begun; false at the end of the connection, or of its time."""
        begun: float | None = None
        while view:
            try:
                count = self._connection.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                return self._late()
            if not count:
                return False
            view = view[count:]
            if view:
                # A client that dribbles must not have the limit of a call again and again.
                begun = begun or time.monotonic()
                if time.monotonic() - begun > MESSAGE_LIMIT:
                    return self._late()
        return True

    def _late(self) -> bool:
        self._tell(f"the client's connection is ended: a message did not come whole within {MESSAGE_LIMIT:g} s")
        return False

    def _take(self, view: memoryview) -> bool:
        """Receive the next bytes of the message, of which what is left is let go if it is refused; false at the end."""
        self._left -= len(view)
        return self._receive(view)

    def _answer(self, header: Header) -> bool:
        if header.rest > _SMALL:
            raise Refusal("too long", errno=EINVAL)
        payload = bytearray(header.rest)
        if not self._take(memoryview(payload)):
            return False
        if header.command != UserCommand.VERSION:
            self._expect_version()
        answer = self._answers.get(header.command)
        if answer is None:
            raise Refusal(f"command {header.command} is not known", errno=ENOTSUP)
        came = answer(bytes(payload))
        if header.wants_reply:
            self._connection.sendall(reply(header, len(came)) + came)
        return True

    def _version(self, payload: bytes) -> bytes:
        if self.agreed or len(payload) > MAX_VERSION:
            raise Refusal("a version was agreed on before, or is too long", errno=EINVAL)
        try:
            theirs = parse_version(payload)
        except MessageError as error:
            raise Refusal(f"the client's version was refused: {error}", errno=EINVAL) from None
        self.agreed = True
        self._most_read = min(theirs.can.max_transfer, MAX_TRANSFER)
        self._parts = self._device.profile.engines if theirs.can.parts else 0
        if self._parts:
            self._moves |= {
                UserCommand.MIG_PART_WRITE: self._write_part,
                UserCommand.MIG_PART_READ: self._read_part,
            }
        return version(
            Capabilities(
                max_transfer=MAX_TRANSFER,
                max_write=min(max(self._device.profile.chunk, 1 << 20), MAX_TRANSFER),
                sticky_errors=True,
                precopy_info=True,
                parts=self._parts,
            ),
            theirs,
        )

    def _feature(self, payload: bytes) -> bytes:
        return feature(self._device, payload, self._claim)

    def _info(self, payload: bytes) -> bytes:
        if len(payload) < INFO.size or INFO.unpack_from(payload)[0] < INFO.size:
            raise Refusal(f"argsz of the device's information is {INFO.size} at least", errno=EINVAL)
        return INFO.pack(INFO.size, INFO_FLAGS, REGIONS, INTERRUPTS)

    def _dma_map(self, payload: bytes) -> bytes:
        if len(payload) < _DMA_MAP.size:
            raise Refusal("a DMA_MAP takes 32 bytes", errno=EINVAL)
        return b""

    def _dma_unmap(self, payload: bytes) -> bytes:
        if len(payload) < _DMA_UNMAP.size:
            raise Refusal("a DMA_UNMAP takes 24 bytes", errno=EINVAL)
        return payload[: _DMA_UNMAP.size]

    def _reset(self, _payload: bytes) -> bytes:
        self._claim()
        self._device.reset()
        return b""

    def _read(self, header: Header) -> bool:
        if header.rest != DATA.size:
            raise Refusal("a read takes 8 bytes", errno=EINVAL)
        if not self._take(self._data_head):
            return False
        argsz, size = DATA.unpack(self._data_head)
        self._check(argsz, size, self._most_read)
        if not header.wants_reply:
            raise Refusal("a read wants no reply, which is where the data would be", errno=EINVAL)
        self._claim()
        saving = self._device.saving()
        views = saving.read(size)
        came = sum(len(view) for view in views)
        head = reply(header, DATA.size + came) + DATA.pack(DATA.size + came, came)
        sent = self._connection.sendmsg((head, *views))
        if sent < len(head) + came:
            self._connection.sendall(b"".join((head, *views))[sent:])  # A signal came while the socket was full.
        saving.given()
        return True

    def _write(self, header: Header) -> bool:
        if header.rest < DATA.size:
            raise Refusal("a write takes 8 bytes and its data", errno=EINVAL)
        if not self._take(self._data_head):
            return False
        argsz, size = DATA.unpack(self._data_head)
        self._check(argsz, size, self._left)
        if size != self._left:
            raise Refusal(f"a write of {size} bytes came with {self._left}", errno=EINVAL)
        self._claim()
        loading = self._device.loading()
        self._left = 0  # The device takes all of it, or the connection is over.
        whole = loading.write(size, self._receive)
        if loading.error is not None:
            raise loading.error
        if not whole:
            return False
        if header.wants_reply:
            self._connection.sendall(reply(header, 0))
        loading.answered()
        return True

    def _read_placed(self, header: Header) -> bool:
        if header.rest != ASKED.size:
            raise Refusal(f"a read of data in shared memory takes {ASKED.size} bytes", errno=EINVAL)
        if not self._take(self._asked_head):
            return False
        size, called = ASKED.unpack(self._asked_head)
        self._expect_version()
        saving = self._device.saving()
        places = b"".join([PLACE.pack(at, count) for at, count in saving.take(min(size, self._device.profile.size))])
        saving.given(called)  # what is left is the client's copy, and next to nothing
        self._connection.sendall(reply(header, len(places)) + places)
        return True

    def _write_placed(self, header: Header) -> bool:
        if header.rest != PLACED.size:
            raise Refusal(f"the place of a write takes {PLACED.size} bytes", errno=EINVAL)
        if not self._take(self._placed_head):
            return False
        loading = self._device.loading()
        whole = loading.write_placed(*PLACED.unpack(self._placed_head))
        if loading.error is not None:
            raise loading.error
        if not whole:
            return False
        loading.answered()
        self._connection.sendall(reply(header, 0))
        return True

    def _read_part(self, header: Header) -> bool:
        if header.rest != PART.size or not header.wants_reply:
            raise Refusal("a read of a part takes 12 bytes, and wants a reply", errno=EINVAL)
        if not self._take(self._part_head):
            return False
        argsz, size, _ = PART.unpack(self._part_head)
        self._check(argsz, size, self._most_read, PART)
        with self._device.saving_parts().part(size) as (tag, view):
            head = reply(header, PART.size + len(view)) + PART.pack(PART.size + len(view), len(view), tag)
            sent = self._connection.sendmsg((head, view))
            if sent < len(head) + len(view):
                self._connection.sendall(b"".join((head, view))[sent:])
        return True

    def _write_part(self, header: Header) -> bool:
        if header.rest < PART.size:
            raise Refusal("a write of a part takes 12 bytes and its data", errno=EINVAL)
        if not self._take(self._part_head):
            return False
        argsz, size, tag = PART.unpack(self._part_head)
        self._check(argsz, size, self._left, PART)
        if size != self._left:
            raise Refusal(f"a write of {size} bytes came with {self._left}", errno=EINVAL)
        loading = self._device.loading_parts()
        self._left = 0  # The device takes all of it, or the connection is over.
        if not loading.write(tag, size, self._receive):
            return False
        if header.wants_reply:
            self._connection.sendall(reply(header, 0))
        return True

    def _expect_version(self) -> None:
        if not self.agreed:
            raise Refusal("VERSION comes first", errno=EPROTO)

    def _check(self, argsz: int, size: int, most: int, form: struct.Struct = DATA) -> None:
        self._expect_version()
        if argsz < form.size + size or size > most:
            raise Refusal(f"argsz is {argsz} and size {size}: at most {most} bytes are possible", errno=EINVAL)

    def _refuse(self, header: Header, refusal: Refusal) -> bool:
        self._device.refuse(refusal)
        self._tell(refusal.text)
        if header.wants_reply:
            self._connection.sendall(reply(header, 0, refusal.errno))
        return True

    def _tell(self, text: str) -> None:
        if self._told is not None:
            self._told(text)
