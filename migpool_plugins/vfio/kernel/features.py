"""The requests about migration that go through VFIO_DEVICE_FEATURE. Errors are the driver's own, as ``OSError``."""

from __future__ import annotations

from struct import Struct

from migpool_plugins.vfio.kernel import abi
from migpool_plugins.vfio.kernel.calls import Calls
from migpool_plugins.vfio.migration import (
    FEATURE_HEADER,
    MIG_DATA_SIZE,
    MIG_STATE,
    MIGRATION,
    Feature,
    FeatureFlag,
    Flags,
    MigrationState,
)

__all__ = ["get_data_size", "get_flags", "get_state", "set_state"]


def get_flags(calls: Calls, fd: int) -> Flags:
    """What a device can do; ENOTTY if its driver has no migration of version 2."""
    argument = _feature(calls, fd, FeatureFlag.GET | Feature.MIGRATION, MIGRATION)
    (flags,) = MIGRATION.unpack_from(argument, FEATURE_HEADER.size)
    return Flags(flags)


def get_state(calls: Calls, fd: int) -> MigrationState:
    """Where a device is."""
    argument = _feature(calls, fd, FeatureFlag.GET | Feature.MIG_DEVICE_STATE, MIG_STATE)
    state, _descriptor = MIG_STATE.unpack_from(argument, FEATURE_HEADER.size)
    return MigrationState(state)


def set_state(calls: Calls, fd: int, target: int) -> int:
    """Bring a device to a state, over all arcs between; returns the new data descriptor, -1 if there is no new one."""
    flags = FeatureFlag.SET | Feature.MIG_DEVICE_STATE
    argument = _feature(calls, fd, flags, MIG_STATE, MIG_STATE.pack(target, -1))
    _state, descriptor = MIG_STATE.unpack_from(argument, FEATURE_HEADER.size)
    return int(descriptor)


def get_data_size(calls: Calls, fd: int) -> int:
    """How many bytes a stop-copy would read, by the driver's estimate; ENOTTY if it makes none."""
    argument = _feature(calls, fd, FeatureFlag.GET | Feature.MIG_DATA_SIZE, MIG_DATA_SIZE)
    (size,) = MIG_DATA_SIZE.unpack_from(argument, FEATURE_HEADER.size)
    return int(size)


def _feature(calls: Calls, fd: int, flags: int, layout: Struct, content: bytes = b"") -> bytearray:
    """Make the request; returns its structure as the driver left it."""
    size = FEATURE_HEADER.size + layout.size
    argument = bytearray(FEATURE_HEADER.pack(size, flags) + (content or bytes(layout.size)))
    calls.ioctl(fd, abi.DEVICE_FEATURE.number, argument)
    return argument
