"""The vocabulary of VFIO migration, version 2: states, arcs, features. Pure; nothing here does I/O.

The numbers and the arcs are those of the kernel's user interface (``linux/vfio.h``, the comment at
``enum vfio_device_mig_state``); vfio-user carries the same numbers, in the same structures. One request may ask for a
state that is several arcs away: the device walks them one by one, and an arc that fails leaves it at the step it had
reached.

The arcs, with P2P and PRE_COPY::

    RUNNING ------- PRE_COPY                     the machine runs
       |                |
    RUNNING_P2P --- PRE_COPY_P2P                 the device answers its peers, but begins nothing itself
       |                |
      STOP ---- STOP_COPY (one way from PRE_COPY_P2P)     the device stands still
       |
    RESUMING

Everything that decides whether a state can be reached lives in this file.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from struct import Struct
from typing import Final


class MigrationState(enum.IntEnum):
    """Where a device is; the values are those of the kernel's interface and of vfio-user."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5
    PRE_COPY = 6
    PRE_COPY_P2P = 7


class Feature(enum.IntEnum):
    """What a request about a device's features is about."""

    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    MIG_DATA_SIZE = 9
    PRECOPY_INFO = 0xFF01
    """migpool's own, asked only of a vfio-user server that has announced it: in the kernel this is a request on the
    data descriptor (MIG_GET_PRECOPY_INFO), and vfio-user has no command for it."""


class FeatureFlag(enum.IntFlag):
    """What is to be done with a feature; the lower 16 bits hold which."""

    INDEX = 0xFFFF
    GET = 1 << 16
    SET = 1 << 17
    PROBE = 1 << 18


FEATURE_HEADER: Final = Struct("=II")
"""``struct vfio_device_feature``: argsz (in vfio-user the larger of request and reply), feature and flags."""
MIGRATION: Final = Struct("=Q")
"""``struct vfio_device_feature_migration``: :class:`Flags`."""
MIG_STATE: Final = Struct("=Ii")
"""``struct vfio_device_feature_mig_state``: state, data descriptor, of which vfio-user makes no use."""
MIG_DATA_SIZE: Final = Struct("=Q")
"""``struct vfio_device_feature_mig_data_size``: bytes that a stop-copy would have to read."""


class Flags(enum.IntFlag):
    """What a device can do; the answer to the MIGRATION feature."""

    STOP_COPY = 1
    P2P = 2
    PRE_COPY = 4


PRE_COPY: Final = frozenset({MigrationState.PRE_COPY, MigrationState.PRE_COPY_P2P})
READABLE: Final = PRE_COPY | {MigrationState.STOP_COPY}
"""States in which state can be read."""
WRITABLE: Final = frozenset({MigrationState.RESUMING})
"""States in which state can be written."""
_TRANSFER: Final = READABLE | WRITABLE

_M = MigrationState
ARCS: Final[Mapping[MigrationState, frozenset[MigrationState]]] = {
    _M.RUNNING: frozenset({_M.RUNNING_P2P, _M.STOP, _M.PRE_COPY}),
    _M.RUNNING_P2P: frozenset({_M.RUNNING, _M.STOP, _M.PRE_COPY_P2P}),
    _M.STOP: frozenset({_M.RUNNING_P2P, _M.RUNNING, _M.STOP_COPY, _M.RESUMING}),
    _M.STOP_COPY: frozenset({_M.STOP}),
    _M.RESUMING: frozenset({_M.STOP}),
    _M.PRE_COPY: frozenset({_M.RUNNING, _M.PRE_COPY_P2P, _M.STOP_COPY}),
    _M.PRE_COPY_P2P: frozenset({_M.RUNNING_P2P, _M.PRE_COPY, _M.STOP_COPY}),
    _M.ERROR: frozenset(),
}
"""The single arcs. A device with P2P does not know those that jump over it: see :func:`path`. ERROR has none: only a
reset leaves it, and nobody can ask for it."""

_OVER_P2P: Final = frozenset({(_M.RUNNING, _M.STOP), (_M.STOP, _M.RUNNING), (_M.PRE_COPY, _M.STOP_COPY)})
"""Arcs that exist only without P2P."""


def states_with(flags: Flags) -> frozenset[MigrationState]:
    """The states that a device with these flags has."""
    states = set(MigrationState)
    if Flags.P2P not in flags:
        states -= {_M.RUNNING_P2P, _M.PRE_COPY_P2P}
    if Flags.PRE_COPY not in flags:
        states -= PRE_COPY
    return frozenset(states)


def path(begin: MigrationState, end: MigrationState, flags: Flags) -> tuple[MigrationState, ...] | None:
    """The states that a device goes through from ``begin`` to ``end``, ``end`` included and ``begin`` not.

    The shortest way is taken, and never through a state in which data moves: so STOP_COPY to RESUMING goes over STOP,
    while STOP_COPY to PRE_COPY, which would have to begin a second save from RUNNING, is refused as the kernel does.

    Returns:
        The states; empty if the device is there already; ``None`` if there is no way.
    """
    known = states_with(flags)
    if begin not in known or end not in known or end is _M.ERROR or begin is _M.ERROR:
        return None
    if begin is _M.STOP_COPY and end in PRE_COPY:
        return None
    seen: set[MigrationState] = {begin}
    ways: deque[tuple[MigrationState, ...]] = deque([(begin,)])
    while ways:
        way = ways.popleft()
        here = way[-1]
        if here is end:
            return way[1:]
        if here in _TRANSFER and here is not begin and not (here is _M.PRE_COPY_P2P and begin is _M.PRE_COPY):
            continue
        for there in sorted(ARCS[here] & known):
            if there not in seen and not (Flags.P2P in flags and (here, there) in _OVER_P2P):
                seen.add(there)
                ways.append((*way, there))
    return None
