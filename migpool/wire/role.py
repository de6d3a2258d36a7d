"""What a connection is, from its first four bytes: channels of a migration are accepted in any order."""

from __future__ import annotations

from enum import Enum
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.events import FILE_MAGIC
from migpool.wire.inbox import Buffer
from migpool.wire.multifd import MAGIC

__all__ = ["ROLE_SIZE", "Role", "role"]

ROLE_SIZE: Final = 4
"""How many bytes :func:`role` looks at. They belong to the channel and must be fed to its reader."""


class Role(Enum):
    """The kinds of channels."""

    MAIN = "main channel"
    MULTIFD = "multifd channel"


_ROLES: Final = {FILE_MAGIC: Role.MAIN, MAGIC.to_bytes(4, "big"): Role.MULTIFD}


def role(first: Buffer) -> Role:
    """The role of a connection that begins with ``first`` (4 bytes or more).

    Raises:
        ProtocolError: neither kind of channel begins so.
    """
    magic = bytes(memoryview(first)[:ROLE_SIZE])
    if magic not in _ROLES:
        right = " or ".join(f"{known.hex()} ({role.value})" for known, role in _ROLES.items())
        raise ProtocolError(0, "first bytes of a connection", f"{right}, found {magic.hex() or 'nothing'}")
    return _ROLES[magic]
