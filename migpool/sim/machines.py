"""A scenario in virtual time: the world that its machine says of itself, under a threading model or as QEMU does it.

A device says what its work takes (:meth:`~migpool.device.Device.costs`); one that does not takes no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from migpool.core import returned
from migpool.core.machine import Slot
from migpool.device import StateCosts, TaggedDevice
from migpool.errors import UsageError
from migpool.scenario.build import build_machine
from migpool.scenario.model_names import SideModel, parse_model
from migpool.scenario.schema import Scenario
from migpool.sim.qemu import qemu_downtime
from migpool.sim.simulate import downtime
from migpool.sim.world import Profile, Shared, Way, World, chunks_of

LINK_RATE: Final = 12.5e9
"""Bytes a second of a link whose rate the scenario does not say: 100 GbE."""
CHANNEL_RATE: Final = 5e9
"""How fast one thread can put state into one channel."""
MANY: Final = 4096

QEMU: Final[Mapping[str, bool]] = {"qemu": False, "qemu:transfer": True}
"""QEMU's own ways, and whether its iterable devices go over the multifd channels."""
_WORKERS: Final[Mapping[str, int | None]] = {"inline": 1, "per-device": MANY, "pool": None, "elastic": MANY}
"""How many workers each model that can be simulated has if nobody says it; a pool as many as is usual for one."""
USUAL: Final = (*QEMU, "inline", "pool", "per-device")


@dataclass(frozen=True, slots=True)
class Predictable:
    """A scenario's machine as it can be simulated.

    Attributes:
        world: for one worker at each end.
        usual: how many workers a pool has unless it is told.
        unknown: the devices that say nothing of their times, and are left out.
    """

    world: World
    usual: int
    unknown: tuple[str, ...]

    def downtime(self, model: str) -> float:
        """Simulate a switchover; returns its downtime in seconds.

        Arguments:
            model: a key of :data:`QEMU`, or the name of a threading model.

        Raises:
            UsageError: there is no such model, or it cannot be simulated.
            MigpoolError: the jobs wait for each other.
        """
        if model in QEMU:
            return qemu_downtime(self.world, transfer=QEMU[model])
        parsed = parse_model(model)
        savers, loaders = (self._workers(part) for part in (parsed.source, parsed.destination))
        return downtime(replace(self.world, savers=savers, loaders=loaders))

    def _workers(self, part: SideModel) -> int:
        if part.name not in _WORKERS:
            there = ", ".join([*QEMU, *_WORKERS])
            raise UsageError(f"model {part.name} cannot be simulated: what can is {there}")
        return part.workers or _WORKERS[part.name] or self.usual


def predictable(scenario: Scenario, where: str = "") -> Predictable:
    """Build the scenario's machine at both ends, ask it for its times, and close it.

    Arguments:
        where: the scenario's file, for errors.

    Raises:
        UsageError: no device says anything of its times.
        MigpoolError: the machine cannot be made.
    """
    with closing(build_machine(scenario, "source", scenario.seed, where)) as source:
        slots = [slot for slot in source.slots if not slot.device.early]
        costs = [_costs(slot) for slot in slots]
    with closing(build_machine(scenario, "destination", scenario.seed, where)) as destination:
        writes = [_costs(destination.slots[slot.number]) for slot in slots]
    known = [number for number, one in enumerate(costs) if one is not None]
    if not known:
        raise UsageError(
            f"{where or scenario.name}: no device says what its work takes: measure with `migpool compare`, or take a "
            "scenario from a trace (`migpool scenario from`)"
        )
    places = {slots[number].number: place for place, number in enumerate(known)}
    profiles = [_profile(scenario, slots[number], costs[number], writes[number], places) for number in known]
    iterable = sum(profile.way in ("iterable", "tagged") for profile in profiles)
    world = World(
        devices=profiles,
        savers=1,
        loaders=1,
        channels=scenario.channels.count,
        channel_rate=CHANNEL_RATE,
        link_rate=float(scenario.link.rate or LINK_RATE),
        chunk=scenario.memory.chunk,
        rooms=max(scenario.memory.budget // scenario.memory.chunk, iterable),
        base=sum(one.start for one in costs if one is not None),
        together=scenario.migration.together,
    )
    unknown = tuple(slot.name for slot, one in zip(slots, costs, strict=True) if one is None)
    return Predictable(world, max(1, min(world.channels, iterable)), unknown)


def _costs(slot: Slot) -> StateCosts | None:
    return returned.costs(slot, "costs", slot.device.costs())


def _profile(
    scenario: Scenario, slot: Slot, costs: StateCosts | None, writes: StateCosts | None, places: Mapping[int, int]
) -> Profile:
    assert costs is not None
    device = slot.device
    way = _way(scenario, slot)
    profile = Profile(
        size=costs.size,
        read=costs.read,
        write=costs.write,
        stop=costs.stop,
        load_config=costs.load_config,
        shared=_shared(costs, writes),
        way=way,
        lanes=device.in_flight or scenario.migration.in_flight if device.iterable else 1,
        after=[places[number] for number in slot.after if number in places],
        save_config=costs.save_config,
        config_size=costs.config_size,
        save_lock=device.save_lock,
        load_lock=device.load_lock,
        channel=costs.channel,
        ram=costs.memory,
    )
    if isinstance(device, TaggedDevice):
        # What its engines need together it says; here each has its own.
        at_once = max(1, min(device.engines, chunks_of(profile, scenario.memory.chunk)))
        profile = replace(profile, lanes=device.engines, read=costs.read * at_once, write=costs.write * at_once)
    if not costs.size:
        profile = replace(
            profile,
            read=0.0,
            write=0.0,
            save_config=costs.save_config + costs.read,
            load_config=costs.load_config + costs.write,
        )
    return profile


def _way(scenario: Scenario, slot: Slot) -> Way:
    device = slot.device
    if device.iterable:
        return "tagged" if isinstance(device, TaggedDevice) else "iterable"
    channel = device.config_channel or scenario.migration.vmsd
    return "described" if channel == "multifd" and not device.optional else "section"


def _shared(source: StateCosts, destination: StateCosts | None) -> Shared:
    reads, writes = bool(source.shared_lock), destination is not None and bool(destination.shared_lock)
    if reads and writes:
        return "reads and writes"
    return "reads" if reads else "writes" if writes else "nothing"


def simulated_models(names: Sequence[str], scenario: Scenario) -> list[str]:
    """The models to simulate: those that are named, else QEMU's ways and those of the scenario that can be."""
    if names:
        return list(names)
    can = [name for name in scenario.compare.models if all(part in _WORKERS for part in _parts(name))]
    return [*QEMU, *can] if can else list(USUAL)


def _parts(name: str) -> list[str]:
    return [piece.partition(":")[0] for piece in name.split("+")]
