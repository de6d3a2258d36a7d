"""A network card with a ring of packet descriptors: an example of a device plug-in.

It needs ``migpool.device`` and nothing else of migpool. The ring is state: it is saved in chunks over the multifd
channels. The card's registers are its config: they are saved last.
"""

from __future__ import annotations

import hashlib
import random
import struct

from migpool.device import Device, DeviceContext, DeviceError, Option, Options

__all__ = ["OPTIONS", "RingNic", "devices"]

REGISTERS = struct.Struct(">QQQ")
RING = Option.size("ring", 65536, "the ring of each card")
OPTIONS = Options("ringnic", RING)


class RingNic(Device):
    """One card.

    Arguments:
        number: which of the machine's cards it is.
        ring: the ring's bytes; zeros at the destination, until they are loaded.
    """

    idstr = "ringnic"
    iterable = True

    def __init__(self, number: int, ring: bytearray) -> None:
        self.instance_id = number
        self.ring = ring
        self.head = number * 64 % max(1, len(ring))
        self.moved = 0

    def save_state(self, buffer: memoryview) -> int:
        """The next part of the ring."""
        part = memoryview(self.ring)[self.moved : self.moved + len(buffer)]
        buffer[: len(part)] = part
        self.moved += len(part)
        return len(part)

    def save_config(self) -> bytes:
        """The registers."""
        return REGISTERS.pack(len(self.ring), self.head, self.moved)

    def resume(self) -> None:
        """The next migration begins at the ring's beginning."""
        self.moved = 0

    def load_state(self, data: memoryview) -> None:
        """The next part of the ring."""
        if self.moved + len(data) > len(self.ring):
            raise DeviceError(f"the ring has {len(self.ring)} bytes, more have come: give both ends the same 'ring'")
        self.ring[self.moved : self.moved + len(data)] = data
        self.moved += len(data)

    def load_config(self, data: bytes) -> None:
        """The registers; they must fit what has come of the ring."""
        if len(data) != REGISTERS.size:
            raise DeviceError(f"the registers are {len(data)} bytes long, {REGISTERS.size} are right")
        size, self.head, moved = REGISTERS.unpack(data)
        if (size, moved) != (len(self.ring), self.moved):
            raise DeviceError(f"{self.moved} of {size} bytes of the ring have come")

    def fingerprint(self) -> bytes:
        """A digest of ring and registers."""
        return hashlib.sha256(bytes(self.ring) + self.head.to_bytes(8, "big")).digest()


def devices(context: DeviceContext) -> list[Device]:
    """A network card's descriptor rings (an example)."""
    size = OPTIONS.read(context.options)[RING]
    dice = random.Random(context.seed)
    return [
        RingNic(number, bytearray(dice.randbytes(size) if context.side == "source" else size))
        for number in range(context.count)
    ]
