"""What is known of a VFIO device's state: the records and packets it crossed in, and the config at its end.

The state itself is the driver's own, and means nothing to anybody else. The config is QEMU's, big-endian but for the
device's own register space::

    u32 version, config space (256 bytes; 4096 of a PCI Express device), 4 x u32 of the interrupt pins' state
    then, with MSI-X: its table and its pending bits
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.summary import Piece
from migpool.vmsd.codec import Shown
from migpool.wire.records import Mark, begins_with_record, records_in
from migpool.wire.sections import SectionHead, head_bytes

_VERSION: Final = Struct(">I")
_PINS: Final = Struct(">4I")
_SPACES: Final = (4096, 256)
_REGISTERS: Final = {
    "vendor": (0x00, 2),
    "device": (0x02, 2),
    "command": (0x04, 2),
    "status": (0x06, 2),
    "revision": (0x08, 1),
    "class": (0x09, 3),
    "subsystem vendor": (0x2C, 2),
    "subsystem": (0x2E, 2),
}


def pieces_of(head: SectionHead, payload: bytes) -> tuple[tuple[Piece, ...], bytes]:
    """The records of a section of an iterable device, and its config; nothing of a section that has no records.

    Arguments:
        head: whose section it is.
        payload: all of it.
    """
    if not begins_with_record(payload, config=True):
        return (), b""
    try:
        records = records_in(payload)
    except ProtocolError:
        return (), b""
    begin = head.offset + len(head_bytes(head))
    pieces = tuple(Piece(record.mark.name, len(record.data), begin + record.offset) for record in records)
    return pieces, next((bytes(record.data) for record in records if record.mark is Mark.CONFIG), b"")


def shown(pieces: tuple[Piece, ...], config: bytes) -> Mapping[str, Shown]:
    """What there is to show of them, as fields.

    Arguments:
        pieces: the records or packets, in the order in which they came.
        config: the config, if it was among them.
    """
    fields: dict[str, Shown] = {"pieces": [_piece(piece) for piece in pieces]}
    if config:
        fields["config"] = config_fields(config)
    return fields


def _piece(piece: Piece) -> str:
    size = f", {piece.size} bytes" if piece.size else ""
    where = "" if piece.channel is None else f" of channel {piece.channel}"
    return f"{piece.what}{size} at byte {piece.offset}{where}"


def config_fields(config: bytes) -> dict[str, Shown]:
    """A device's config by the names of its registers; as bytes alone if it is of another form."""
    for space in _SPACES:
        rest = len(config) - _VERSION.size - space - _PINS.size
        if rest >= 0:
            registers = config[_VERSION.size : _VERSION.size + space]
            fields: dict[str, Shown] = {"size": f"{len(config)} bytes", "version": str(_VERSION.unpack_from(config)[0])}
            for name, (at, size) in _REGISTERS.items():
                fields[name] = f"0x{int.from_bytes(registers[at : at + size], 'little'):0{2 * size}x}"
            fields["config space"] = registers.hex(" ")
            pins = _PINS.unpack_from(config, _VERSION.size + space)
            fields["pins"] = [f"0x{pin:08x}" for pin in pins]
            if rest:
                fields["MSI-X and more"] = config[-rest:].hex(" ")
            return fields
    return {"size": f"{len(config)} bytes", "bytes": config.hex(" ")}
