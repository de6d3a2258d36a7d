"""The VERSION message: two numbers, and what each end can do, as JSON that ends in a NUL. Sans I/O.

Besides the protocol's own capabilities a server may announce ``migpool``, an object of which every key is optional::

    max_write_size   bytes of data that one MIG_DATA_WRITE may carry. Without it migpool sends 32 KiB: there are servers
                     that lose the framing over longer ones.
    sticky_errors    a failed MIG_DATA_WRITE fails all that follow, so that only the last one needs a reply
    precopy_info     whether DEVICE_FEATURE knows PRECOPY_INFO
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Final

from migpool_plugins.vfio.vfiouser.message import MessageError

MAJOR: Final = 0
MINOR: Final = 2
MAX_VERSION: Final = 4096
"""Bytes of a VERSION payload that are looked at: what is longer is no VERSION."""
MAX_TRANSFER: Final = 1 << 20
"""Bytes of data a message, where an end does not say: the protocol's default."""
_NUMBERS: Final = struct.Struct("=HH")
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one end of a connection can do.

    Arguments:
        max_transfer: bytes of data that one message to this end, or one answer from it, may carry.
        migration: whether the device can migrate; a server says so.
        max_write: see the module.
        sticky_errors: see the module.
        precopy_info: see the module.
    """

    max_transfer: int = MAX_TRANSFER
    migration: bool = True
    max_write: int = 0
    sticky_errors: bool = False
    precopy_info: bool = False


def version(ours: Capabilities) -> bytes:
    """Return the payload of a VERSION message."""
    table: dict[str, object] = {"max_msg_fds": 1, "max_data_xfer_size": ours.max_transfer}
    if ours.migration:
        table["migration"] = {"pgsize": _PAGE}
    if ours.max_write:
        table["migpool"] = {
            "max_write_size": ours.max_write,
            "sticky_errors": ours.sticky_errors,
            "precopy_info": ours.precopy_info,
        }
    return _NUMBERS.pack(MAJOR, MINOR) + json.dumps({"capabilities": table}).encode() + b"\0"


def parse_version(payload: bytes) -> Capabilities:
    """Return what the other end can do. What is missing has the protocol's default; what is unknown is passed over.

    Raises:
        MessageError: another major version, no capabilities that can be read, or none with which data can move.
    """
    if len(payload) < _NUMBERS.size:
        raise MessageError(f"a VERSION of {len(payload)} bytes has no version")
    major, _ = _NUMBERS.unpack_from(payload)
    if major != MAJOR:
        raise MessageError(f"version {major} is not spoken here, only {MAJOR}.{MINOR}")
    text = payload[_NUMBERS.size :].partition(b"\0")[0]
    try:
        said = json.loads(text) if text else {}
        table = said.get("capabilities", {})
        extension = table.get("migpool", {})
        found = Capabilities(
            max_transfer=_count(table, "max_data_xfer_size", MAX_TRANSFER),
            migration="migration" in table,
            max_write=_count(extension, "max_write_size", 0),
            sticky_errors=extension.get("sticky_errors") is True,
            precopy_info=extension.get("precopy_info") is True,
        )
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise MessageError("the capabilities of a VERSION are no JSON of the right form") from None
    if not found.max_transfer:
        raise MessageError("the capabilities of a VERSION have a max_data_xfer_size of 0, with which no data can move")
    return found


def _count(table: dict[str, object], key: str, default: int) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(key)
    return value
