"""DEVICE_FEATURE on the server's side: whether a device migrates, in which state it is, and how much is left."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import Final

from migpool_plugins.vfio.migration import (
    FEATURE_HEADER,
    MIG_DATA_SIZE,
    MIG_STATE,
    MIGRATION,
    PRE_COPY,
    Feature,
    FeatureFlag,
)
from migpool_plugins.vfio.state import DeviceState
from migpool_plugins.vfio.transfer import Refusal
from migpool_plugins.vfio.vfiouser.message import PRECOPY_INFO

_NO_DESCRIPTOR: Final = -1


def feature(device: DeviceState, payload: bytes, claim: Callable[[], None]) -> bytes:
    """Return the answer to the payload of a DEVICE_FEATURE.

    Arguments:
        device: whose migration is asked for.
        payload: the kernel's ``vfio_device_feature``, and what belongs to the feature.
        claim: is called before a state is set.

    Raises:
        Refusal: there is no such feature, it cannot be had in this way or now, or the device refused.
    """
    if len(payload) < FEATURE_HEADER.size:
        raise Refusal("a feature without its header", errno=EINVAL)
    argsz, flags = FEATURE_HEADER.unpack_from(payload)
    body = payload[FEATURE_HEADER.size :]
    index, what = flags & FeatureFlag.INDEX, flags >> 16 << 16
    settable = index == Feature.MIG_DEVICE_STATE
    known = index in Feature.__members__.values()
    if not known or what >= FeatureFlag.PROBE << 1:
        raise Refusal(f"feature {index} is not known", errno=EINVAL)
    if what & FeatureFlag.PROBE:
        if (what & FeatureFlag.SET and not settable) or argsz < FEATURE_HEADER.size:
            raise Refusal(f"feature {index} cannot be set", errno=EINVAL)
        return payload[: FEATURE_HEADER.size]
    if what == FeatureFlag.SET and settable:
        if len(body) < MIG_STATE.size or argsz < FEATURE_HEADER.size + MIG_STATE.size:
            raise Refusal("a state that is set takes 16 bytes", errno=EINVAL)
        claim()
        device.set_state(MIG_STATE.unpack_from(body)[0])
        return FEATURE_HEADER.pack(argsz, flags) + MIG_STATE.pack(device.where(), _NO_DESCRIPTOR)
    if what != FeatureFlag.GET:
        raise Refusal(f"feature {index} can be got" + (" or set" if settable else ""), errno=EINVAL)
    came = _get(device, Feature(index))
    if argsz < FEATURE_HEADER.size + len(came):
        raise Refusal(f"argsz is {argsz}, the answer takes {FEATURE_HEADER.size + len(came)}", errno=EINVAL)
    return FEATURE_HEADER.pack(FEATURE_HEADER.size + len(came), flags) + came


def _get(device: DeviceState, asked: Feature) -> bytes:
    match asked:
        case Feature.MIGRATION:
            return MIGRATION.pack(device.profile.flags)
        case Feature.MIG_DEVICE_STATE:
            return MIG_STATE.pack(device.where(), _NO_DESCRIPTOR)
        case Feature.MIG_DATA_SIZE:
            return MIG_DATA_SIZE.pack(device.data_size())
        case Feature.PRECOPY_INFO:
            if device.where() not in PRE_COPY:
                raise Refusal("there is pre-copy information only in PRE_COPY", errno=EINVAL)
            return PRECOPY_INFO.pack(*device.saving().left())
