"""A scenario under a threading model as a world: what is simulated is what would be run.

The devices are what their plug-ins say of them (:class:`~migpool.device.Outline`); channels, memory, link and the way
of the configs are the scenario's; how jobs are taken is the model's (``Scheduler.staffing``). What no scenario says,
how fast this project's own code is on a host, is a :class:`Host`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Final, cast

from migpool.device import DeviceContext, DeviceError, OptionValue, Outline, Side
from migpool.errors import MigpoolError, ScenarioError, UsageError
from migpool.flow.window import rooms_for
from migpool.scenario.model_syntax import Model
from migpool.scenario.plugins import outliner
from migpool.scenario.schema import DeviceEntry, Scenario
from migpool.schedulers.base import Staffing
from migpool.sim.world import Profile, Shared, Way, World

KEPT: Final = 4096
"""Entries whose outlines are kept: a sweep asks for the same ones again and again."""
_SIDES: Final[tuple[Side, Side]] = ("source", "destination")


@dataclass(frozen=True, slots=True)
class Host:
    """How fast two hosts are, besides what their devices do.

    Arguments:
        channel_rate: how fast one thread puts state into one channel, and another takes it out, in bytes a second.
        link_rate: of all channels together, where the scenario says nothing.
        step: what a wait costs besides the wait, in Python code of which a process runs one thread at a time; seconds.
        base: what the downtime has besides its devices and jobs, in seconds.
        call: what each call of a device costs that quiesces, stops, wakes or starts it, besides what it says; seconds.
        config: what the config of a device costs besides what its device says, to save and to load, in seconds.
        copy_rate: how fast a thread that reads or writes copies it, besides what the device takes, in bytes a second.
        copying: how many threads of both ends can copy at once, which are the processors where both ends are on one
            host; 0: all.
        wake: what it takes to wake a thread, or a device's process, if a processor is idle, in seconds.
    """

    channel_rate: float = 1.5e9
    link_rate: float = 6e9
    step: float = 10e-6
    base: float = 1.5e-3
    call: float = 200e-6
    config: float = 150e-6
    copy_rate: float = inf
    copying: int = 0
    wake: float = 0.0


def world_of(scenario: Scenario, model: Model, host: Host, where: str) -> World:
    """The world of one migration.

    Arguments:
        where: the scenario's file, for errors.

    Raises:
        UsageError: a device or the model cannot be simulated, or the scenario cannot be.
        MigpoolError: a plug-in refuses its options.
    """
    memory, migration = scenario.memory, scenario.migration

    def profiles_at(chunk: int) -> list[Profile]:
        return [
            profile
            for number, entry in enumerate(scenario.devices)
            for profile in _profiles(scenario, entry, chunk, host, f"{where}: devices[{number}]")
        ]

    profiles = profiles_at(memory.chunk)
    jobs = sum(one.way != "section" for one in profiles)
    iterable = sum(one.way in ("iterable", "tagged") for one in profiles)
    chunk, rooms = rooms_for(memory.budget, memory.chunk, iterable + (jobs > iterable))
    if chunk < memory.chunk:
        profiles = profiles_at(chunk)
    saving, loading = (_staffing(model, side, scenario.channels.count, jobs) for side in _SIDES)
    return World(
        devices=tuple(profiles),
        savers=saving.threads,
        loaders=loading.threads,
        channels=scenario.channels.count,
        channel_rate=host.channel_rate,
        link_rate=scenario.link.rate or host.link_rate,
        latency=scenario.link.delay,
        jitter=scenario.link.jitter,
        loss=scenario.link.loss,
        mtu=scenario.link.mtu if scenario.link.imposed or scenario.link.delay else 0,
        chunk=chunk,
        rooms=rooms,
        # They are quiesced, woken and started in turn.
        base=host.base + sum(one.start + 3 * host.call for one in profiles),
        step=host.step,
        save_taking=saving.taking,
        load_taking=loading.taking,
        config_load=migration.config_load,
        each=(memory.device_budget or 0) // chunk,
        copy_rate=host.copy_rate,
        copying=host.copying,
        wake=host.wake,
    )


def _staffing(model: Model, side: Side, channels: int, devices: int) -> Staffing:
    part = model.part(side)
    found = part.make().staffing(part.workers, channels, devices)
    if found is None:
        raise UsageError(f"model {model.name!r}: {part.name} does not say how it takes jobs: it cannot be simulated")
    return found


def _profiles(scenario: Scenario, entry: DeviceEntry, chunk: int, host: Host, where: str) -> list[Profile]:
    try:
        source, destination = _outlines_of(entry, chunk)
    except MigpoolError as error:
        raise ScenarioError(f"{where}: {error}") from error
    whole = _of_one_read(entry, source)
    return [_profile(scenario, entry, host, *three) for three in zip(source, whole, destination, strict=True)]


def _of_one_read(entry: DeviceEntry, source: Sequence[Outline]) -> Sequence[Outline | None]:
    """The outlines of devices whose state is one whole read long; ``None`` where that is not known, or of no use.

    With them it is known what a read takes however short it is. A plug-in whose devices have an option ``size`` is
    asked with that.
    """
    chunk, size = source[0].chunk, source[0].size
    if chunk and size > chunk and size % chunk:
        with contextlib.suppress(DeviceError):  # there is no such option
            return _outlines(entry.plugin, json.dumps({**entry.options, "size": chunk}), entry.count, "source")
    return [None] * len(source)


def _each_call(whole: float, one: float, size: int, chunk: int) -> float:
    """What a call takes however short it is: of ``size`` bytes that take ``whole``, where a chunk takes ``one``."""
    if not size % chunk:
        return 0.0  # all are equally long
    return max(0.0, (whole - one * size / chunk) / (-(-size // chunk) - size / chunk))


def _outlines_of(entry: DeviceEntry, chunk: int) -> tuple[tuple[Outline, ...], tuple[Outline, ...]]:
    """The outlines of an entry at both ends, when its devices are written in chunks of so many bytes.

    What a device takes, it says for calls as large as it allows. Where each write has a latency, smaller ones take
    longer together: a plug-in whose devices have an option ``chunk``, the most bytes a call, is asked with that. What a
    read takes is the device's own affair: it makes as much at once as it likes, however little is read of it.
    """
    source, destination = (_outlines(entry.plugin, json.dumps(entry.options), entry.count, side) for side in _SIDES)
    if any(one.chunk > chunk for one in destination):
        with contextlib.suppress(DeviceError):  # there is no such option
            destination = _outlines(
                entry.plugin, json.dumps({**entry.options, "chunk": chunk}), entry.count, "destination"
            )
    return source, destination


@lru_cache(KEPT)
def _outlines(plugin: str, options: str, count: int, side: Side) -> tuple[Outline, ...]:
    given = cast("dict[str, OptionValue]", json.loads(options))
    return tuple(_outliner(plugin)(DeviceContext(side, given, count)))


_outliner = lru_cache(outliner)


def _profile(
    scenario: Scenario, entry: DeviceEntry, host: Host, source: Outline, read: Outline | None, destination: Outline
) -> Profile:
    migration = scenario.migration
    chunk = destination.chunk
    if source.size:
        way: Way = "tagged" if source.engines else "iterable"
    else:
        channel = entry.vmsd or source.config_channel or migration.vmsd
        way = "described" if channel == "multifd" else "section"
    reads, writes = source.costs.shared_lock, destination.costs.shared_lock
    shared: Shared = "reads and writes" if reads and writes else "reads" if reads else "writes" if writes else "nothing"
    return Profile(
        size=source.size,
        read=source.costs.read,
        write=destination.costs.write,
        stop=source.costs.stop + host.call,
        save_config=source.costs.save_config + host.config,
        load_config=destination.costs.load_config + host.config,
        shared=shared,
        way=way,
        lanes=source.engines or (1 if way == "described" else entry.in_flight or migration.in_flight),
        config_size=source.config_size,
        save_lock=source.config_lock,
        load_lock=destination.config_lock,
        chunk=source.chunk,
        lock=reads or writes,
        read_slack=None if source.engines else source.read_slack,
        start=destination.start,
        channel=source.channel,
        ram=source.memory,
        read_call=_each_call(source.costs.read, read.costs.read, source.size, source.chunk) if read else 0.0,
        write_call=(
            _each_call(destination.costs.write, destination.costs.write_chunk, destination.size, chunk)
            if chunk and destination.size > chunk and destination.costs.write_chunk
            else 0.0
        ),
    )
