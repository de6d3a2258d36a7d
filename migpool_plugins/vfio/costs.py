"""What emulated devices are and take, known without a device process: for the simulator, and for themselves."""

from __future__ import annotations

from dataclasses import replace

from migpool.device import DeviceContext, DeviceError, Outline, Side, StateCosts
from migpool_plugins.vfio.options import parse_options
from migpool_plugins.vfio.profiles import DeviceProfile
from migpool_plugins.vfio.transfer import READ_ALLOWANCE


def outlines(context: DeviceContext) -> list[Outline]:
    """The outlines of an entry's devices.

    Raises:
        DeviceError: an option is wrong, or the devices are no emulated ones.
    """
    if context.options.get("backend", "emulated") != "emulated":
        raise DeviceError("vfio option backend: what a device that is not emulated takes nobody knows before it runs")
    settings = parse_options(context)
    lock = settings[0].idstr
    return [
        Outline(
            costs=costs_of(one.profile, context.side, lock),
            size=one.profile.size,
            chunk=one.profile.chunk,
            config_size=one.profile.config_size,
            engines=one.profile.engines,
            read_slack=READ_ALLOWANCE,
        )
        for one in settings
    ]


def costs_of(profile: DeviceProfile, side: Side, lock: str) -> StateCosts:
    """What one caller needs for all of a device's state.

    Arguments:
        lock: the name of the lock that its siblings share, if the profile has it hold one.
    """
    last = profile.size - (profile.chunks - 1) * profile.chunk
    whole = profile.chunks - 1
    return StateCosts(
        stop=profile.stop_time,
        read=whole * profile.read_cost(profile.chunk) + profile.read_cost(last),
        write_chunk=profile.write_cost(min(profile.chunk, profile.size)),
        write=whole * profile.write_cost(profile.chunk) + profile.write_cost(last),
        save_config=profile.save_config_time,
        load_config=profile.load_config_time,
        shared_lock=lock if profile.locks("read" if side == "source" else "write") else "",
    )


def shared_by_engines(alone: StateCosts, profile: DeviceProfile) -> StateCosts:
    """What a device's engines need together; of the last write no more is known than the least that a part takes."""
    at_once = min(profile.engines, profile.chunks)
    last = profile.size - (profile.chunks - 1) * profile.chunk
    return replace(alone, read=alone.read / at_once, write=alone.write / at_once, write_chunk=profile.write_cost(last))
