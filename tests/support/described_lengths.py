"""A schema made from a stream's own description: the sizes that it states, added up."""

from __future__ import annotations

from pathlib import Path

from migpool.errors import ProtocolError
from migpool.wire.sections import Kind
from migpool.wire.vmdesc import Description, DeviceDescription, Layout, find, parse

CAPTURES = Path(__file__).parent.parent / "data" / "qemu-streams"
NAMES = ("none", "microvm-smp2", "q35-min", "q35-rich")


def capture(name: str) -> bytes:
    """A recorded stream, whole."""
    return (CAPTURES / f"{name}.mig").read_bytes()


def layout_size(layout: Layout) -> int:
    """Bytes of a structure in the stream, with its subsections and their headers."""
    fields = sum(field.size * (1 if field.array_len is None else field.array_len) for field in layout.fields)
    return fields + sum(6 + len(sub.vmsd_name) + layout_size(sub) for sub in layout.subsections)


def device_size(device: DeviceDescription) -> int:
    """Bytes of a device's payload."""
    if device.layout is not None:
        return layout_size(device.layout)
    assert device.size is not None
    return device.size


class DescribedLengths:
    """The schema. It counts how often it is asked, and tells a length only when ``honest`` bytes are there.

    Arguments:
        description: of the stream to be read.
        claims: answer with the length at once, also if the payload is not whole yet; else None is answered then.
    """

    def __init__(self, description: Description, *, claims: bool = False) -> None:
        self.sizes = {(device.name, device.instance_id): device_size(device) for device in description.devices}
        self.claims = claims
        self.asked = 0
        self.looked_at = 0

    @classmethod
    def of(cls, stream: bytes, *, claims: bool = False) -> DescribedLengths:
        """The schema of a whole stream."""
        return cls(parse(find(stream)[1]), claims=claims)

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        return (idstr, instance_id) == ("records", 0)

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        assert kind is Kind.FULL
        assert version >= 0
        self.asked += 1
        self.looked_at += len(data)
        size = self.sizes.get((idstr, instance_id))
        if size is None:
            raise ProtocolError(0, "payload", f"a described device, found {idstr}")
        return size if self.claims or len(data) >= size else None
