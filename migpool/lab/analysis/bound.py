"""The lower bound of a scenario: a downtime that no threading model can go below.

What every model must respect, whatever its threads do:

* The devices become quiet one after the other, then they are stopped one after the other, and nothing is read before
  the last has stopped. (The machine's design; a device may begin to produce its state by itself as soon as it has been
  stopped.)
* A device's chunks are read one after the other, and written one after the other; its last chunk is read before it is
  transferred, and transferred before it is written. The config is saved after the last read, and loaded after the last
  write and the config's own save.
* If the scenario has the configs wait for all iterable devices, the config of an iterable device is loaded after the
  last write of every other one, too.
* Whoever needs a lock has it alone: the big lock of each side for every config that needs it, a lock that devices share
  for their reads.
* The memory's last pages are looked for when all devices have stopped, before any is sent; they cross at the link's
  rate if that is given, else at the best that the runs show; the SYNCs that end them come last.
* The devices wake one after the other when all have been loaded, then start one after the other.

Each of these is relaxed from all others but the stops and the starts: the bound of a lock lets every device reach it as
early as its own chain alone allows. So each part is a bound by itself, and the largest of them is the scenario's.

Costs are what a device declares (``Device.costs``). For one that declares none they are the least that any of the given
runs shows: a bound for those runs, and as good an estimate for others as the runs are many. What no device declares,
the quiesce, the wake, the start, the reception of the last chunk and all of the memory's, is always measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from migpool.device import StateCosts
from migpool.errors import UsageError
from migpool.lab.analysis.device_costs import DeviceCosts, device_costs
from migpool.lab.run.result import LowerBound
from migpool.migration.report import SideReport
from migpool.migration.settings import ConfigLoad
from migpool.units import count_of, format_duration, format_rate, format_size

NOTICEABLE = 1.05
"""A lock that lengthens the longest chain by less than a twentieth is not what limits."""

CHAIN = "longest chain"


def lower_bound(
    runs: Sequence[tuple[SideReport, SideReport]],
    costs: Sequence[StateCosts | None] = (),
    *,
    link_rate: float | None = None,
    config_load: ConfigLoad = "as-loaded",
) -> LowerBound:
    """The lower bound of a scenario of which there are runs.

    Give it the completed runs of all models at once: the bound is the scenario's, and a device that declares no costs
    is judged by the best of them.

    Arguments:
        runs: source's and destination's report of each run; those that did not complete are left out.
        costs: what the source's devices declare, by slot; empty if none declares anything.
        link_rate: bytes a second over all channels together; ``None`` if it is not known.
        config_load: when the runs loaded the configs of iterable devices.

    Raises:
        UsageError: no run completed, the runs are of different machines, or the costs of another number of devices.
    """
    return bound_of(device_costs(runs, costs), link_rate=link_rate, config_load=config_load)


def bound_of(
    devices: Sequence[DeviceCosts], *, link_rate: float | None = None, config_load: ConfigLoad = "as-loaded"
) -> LowerBound:
    """The lower bound of a machine of which all costs are known; ``devices``: in the machine's order.

    Raises:
        UsageError: the link's rate is not over 0.
    """
    if link_rate is not None and link_rate <= 0:
        raise UsageError(f"the link's rate is {link_rate:g} bytes a second: it must be over 0")
    scenario = _Scenario(devices, config_load)
    name, seconds = max(scenario.chains(), key=lambda part: part[1], default=("", 0.0))
    parts = {CHAIN: seconds, **scenario.locks()}
    if (pages := scenario.pages(link_rate)) is not None:
        parts["memory"] = pages
    if link_rate is not None:
        parts["link"] = scenario.link(link_rate)
    words = {CHAIN: name, "link": f"link: {format_size(sum(device.bytes for device in devices))} at its rate"}
    words |= scenario.words
    largest = max(parts, key=lambda part: parts[part])
    limit = largest if parts[largest] > parts[CHAIN] * NOTICEABLE else CHAIN
    return LowerBound(
        milliseconds=parts[largest] * 1e3,
        limited_by=words[limit],
        parts={part: parts[part] * 1e3 for part in sorted(parts, key=lambda part: -parts[part])},
    )


class _Scenario:
    """The parts of the bound, in seconds from the begin of the first stop."""

    def __init__(self, devices: Sequence[DeviceCosts], config_load: ConfigLoad) -> None:
        self.words: dict[str, str] = {}
        self._devices = devices
        stopped = sum(device.quiesce for device in devices)
        self._stops = stopped + sum(device.stop for device in devices)
        self._starts = sum(device.start for device in devices)
        self._read: list[float] = []
        self._producing: list[float] = []
        for device in devices:
            stopped += device.stop
            self._producing.append(self._stops if device.measured else stopped)
            self._read.append(max(self._stops, self._producing[-1] + device.read))
        self._written = [
            max(read + device.receive_last + device.write_last, self._stops + device.write)
            for read, device in zip(self._read, devices, strict=True)
        ]
        # The device before whose last write a config cannot be loaded: its own, or the one that has all state last.
        self._waits_for = list(range(len(devices)))
        iterable = [at for at, device in enumerate(devices) if device.iterable]
        if config_load == "after-iterables" and iterable:
            last = max(iterable, key=self._written.__getitem__)
            for at in iterable:
                self._waits_for[at] = last

    def chains(self) -> Iterable[tuple[str, float]]:
        """Each device's own chain, in words and as seconds."""
        for at, (device, loadable) in enumerate(zip(self._devices, self._loadable(), strict=True)):
            waited = self._devices[self._waits_for[at]]
            yield self._chain_in_words(device, waited), loadable + device.load_config + self._starts

    def locks(self) -> dict[str, float]:
        """The bound of each lock."""
        devices, found = self._devices, {}
        saves = [
            (read, device.save_config) for read, device in zip(self._read, devices, strict=True) if device.save_locked
        ]
        # A memory has no config.
        after_save = min((device.load_config for device in devices if not device.page_rate), default=0.0)
        found["big lock, saving"] = _in_turn(saves) + after_save + self._starts
        self.words["big lock, saving"] = _configs(
            "save", [device.save_config for device in devices if device.save_locked]
        )
        loads = [
            (loadable, device.load_config)
            for loadable, device in zip(self._loadable(), devices, strict=True)
            if device.load_locked
        ]
        found["big lock, loading"] = _in_turn(loads) + self._starts
        self.words["big lock, loading"] = _configs(
            "load", [device.load_config for device in devices if device.load_locked]
        )
        for lock, members in self._sharing().items():
            part = f"lock {lock}, read"
            reads = [(producing, device.read) for producing, device in members]
            rest = min(self._after_read(device) + device.load_config for _, device in members)
            found[part] = max(self._stops, _in_turn(reads)) + rest + self._starts
            whole = format_duration(sum(device.read for _, device in members))
            self.words[part] = f"lock {lock}: reads of {count_of(len(members), 'device')}, {whole} together"
        return found

    def link(self, rate: float) -> float:
        """The bound of the link: every byte crosses it after the stops, and something is done with the last one."""
        iterable = [device for device in self._devices if device.bytes]
        rest = min((device.load_config for device in iterable), default=0.0)
        return self._stops + sum(device.bytes for device in self._devices) / rate + rest + self._starts

    def pages(self, link_rate: float | None) -> float | None:
        """The bound of the memory's last round; ``None`` without a memory, or if no rate is known."""
        for device in self._devices:
            rate = link_rate or device.page_rate
            if device.page_rate and rate:
                self.words["memory"] = f"memory: {format_size(device.bytes)} of pages at {format_rate(rate)}"
                return self._stops + device.look + device.bytes / rate + device.sync + self._starts
        return None

    def _loadable(self) -> list[float]:
        """When each device's config can be loaded at the earliest."""
        return [
            max(self._written[self._waits_for[at]], read + device.save_config)
            for at, (read, device) in enumerate(zip(self._read, self._devices, strict=True))
        ]

    @staticmethod
    def _after_read(device: DeviceCosts) -> float:
        # The config is saved while the last chunk is on its way: the longer of the two counts, not both.
        return max(device.save_config, device.receive_last + device.write_last)

    def _sharing(self) -> dict[str, list[tuple[float, DeviceCosts]]]:
        """By lock, the devices that share it, each with when it begins to produce its state."""
        groups: defaultdict[str, list[tuple[float, DeviceCosts]]] = defaultdict(list)
        for producing, device in zip(self._producing, self._devices, strict=True):
            if device.read_lock:
                groups[device.read_lock].append((producing, device))
        return {lock: members for lock, members in groups.items() if len(members) > 1}

    def _chain_in_words(self, device: DeviceCosts, waited: DeviceCosts) -> str:
        """The chain of ``device``, whose config waits for the writes of ``waited``."""
        steps = [
            ("stops", self._stops),
            ("read", waited.read),
            ("last write", waited.write_last),
            ("config save", waited.save_config),
            (f"config load{'' if device is waited else f' of {device.name}'}", device.load_config),
            ("starts", self._starts),
        ]
        if self._stops + waited.write > self._stops + waited.read + self._after_read(waited):
            steps[1:3] = [("writes", waited.write)]
        told = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in steps if seconds >= 5e-5)
        return f"{waited.name}: {told or 'nothing that takes time'}"


def _in_turn(tasks: Iterable[tuple[float, float]]) -> float:
    """When the last of some tasks is done of which one runs at a time: given when each is ready, and how long it is.

    Earliest ready first is the best order for that, and interrupting a task would not better it.
    """
    done = 0.0
    for ready, seconds in sorted(tasks):
        done = max(done, ready) + seconds
    return done


def _configs(what: str, seconds: Sequence[float]) -> str:
    some = [one for one in seconds if one >= 5e-5]
    if some and max(some) - min(some) < 0.05 * max(some):
        return f"big lock: {count_of(len(some), f'config {what}')} of {format_duration(max(some))}"
    return f"big lock: {count_of(len(some), f'config {what}')}, {format_duration(sum(seconds))} together"
