"""The published downtimes, and what it takes to explain them.

Two hosts, 100 GbE, a guest of 15 GiB, ConnectX-7 virtual functions of about 100 MiB of device state each; the 25th
percentile of 70 to 100 migrations. Once the device state goes over the main channel, one device after the other; once
over six multifd channels, with a thread a device at each end. One profile must explain all six numbers. Asked and never
answered was why four devices with everything in parallel do not take the time of one.

Each hypothesis says what the devices share besides the big lock, under which a config loads in 70 ms (published).
Fitted are how long a device's state takes to read and to write, how fast the main channel takes it, and what the
downtime has besides the devices. The last hypothesis shares nothing, but lets the serial stops take what they need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from migpool.sim.fitting import fit
from migpool.sim.simulate import Profile, Shared, World, downtime
from migpool.units import MIB

SIZE: Final = 100 * MIB
CHUNK: Final = 5 * MIB
"""Larger than real ones, to simulate faster: what is done in turn and what at once does not depend on it."""
LINK_RATE: Final = 12.5e9
CHANNEL_RATE: Final = 5e9
GOOD: Final = 0.10
"""How far from a published downtime a simulated one may be to count as an explanation: the published tables differ by
more from one version of the patches to the next."""
STOP: Final = 0.005
LOAD_CONFIG: Final = 0.070
COUNTS: Final = (4, 2, 1)

PUBLISHED: Final[Mapping[tuple[str, int], float]] = {
    ("main channel", 4): 1.900,
    ("main channel", 2): 0.859,
    ("main channel", 1): 0.487,
    ("multifd", 4): 1.095,
    ("multifd", 2): 0.556,
    ("multifd", 1): 0.366,
}
"""Downtimes in seconds by way and number of devices."""

CHANNELS: Final[Mapping[int, float]] = {6: 1.095, 8: 1.104, 15: 1.125}
"""Downtimes in seconds of four devices over multifd, by number of channels; not fitted, but to be predicted."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What might explain the downtimes.

    Arguments:
        shared: what devices of one host do one at a time.
        stops: whether the stop's time is fitted, instead of being the 5 ms of the device profiles.
    """

    name: str
    shared: Shared
    stops: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one hypothesis explains them.

    Arguments:
        values: what was fitted: ``read``, ``write``, ``base`` and perhaps ``stop`` in seconds, ``main_rate`` in bytes a
            second.
        downtimes: simulated, in seconds, by way and number of devices.
        channels: the same for four devices by number of channels.
    """

    hypothesis: Hypothesis
    values: Mapping[str, float]
    downtimes: Mapping[tuple[str, int], float]
    channels: Mapping[int, float]

    @property
    def worst(self) -> float:
        """The largest deviation from a published downtime, as a share of it."""
        return max(abs(self.downtimes[key] / PUBLISHED[key] - 1) for key in PUBLISHED)


def hypotheses() -> list[Hypothesis]:
    """All that are tried."""
    return [
        Hypothesis("nothing but the big lock", "nothing"),
        Hypothesis("a lock for reads", "reads"),
        Hypothesis("a lock for writes", "writes"),
        Hypothesis("a lock for reads and one for writes", "reads and writes"),
        Hypothesis("nothing, but stops of any length, one after the other", "nothing", stops=True),
    ]


def explain(hypothesis: Hypothesis) -> Fit:
    """Fit one hypothesis; takes some seconds."""
    start = {"read": 0.2, "write": 0.2, "base": 0.1, "main_rate": 1e9}
    if hypothesis.stops:
        start["stop"] = 0.1
    values = fit(start, lambda tried: list(_table(hypothesis, tried).values()), list(PUBLISHED.values()))
    channels = {count: downtime(_multifd(hypothesis, values, 4, count)) for count in CHANNELS}
    return Fit(hypothesis, values, _table(hypothesis, values), channels)


def conclusion(found: Sequence[Fit]) -> str:
    """What all of them together say, in two or three sentences."""
    good = [one for one in found if one.worst <= GOOD]
    bad = [one for one in found if one.worst > GOOD]
    if not good:
        best = min(found, key=lambda one: one.worst)
        return f"None explains the published downtimes; the nearest is {_told(best)}."
    said = f"Within {GOOD:.0%} of every published downtime: {'; '.join(map(_told, good))}."
    if bad:
        said += f" Not so: {'; '.join(map(_told, bad))}."
    if len(good) > 1 and bad:
        said += (
            " So beside the config loads something else is done one device at a time; these numbers alone do not tell "
            "which of these it is."
        )
    return said


def _told(one: Fit) -> str:
    return f"{one.hypothesis.name} (at most {one.worst:.0%} off)"


def _table(hypothesis: Hypothesis, values: Mapping[str, float]) -> dict[tuple[str, int], float]:
    found = {("main channel", count): downtime(_main_channel(hypothesis, values, count)) for count in COUNTS}
    return found | {("multifd", count): downtime(_multifd(hypothesis, values, count, 6)) for count in COUNTS}


def _main_channel(hypothesis: Hypothesis, values: Mapping[str, float], devices: int) -> World:
    """One thread at each end, one channel, and no more room between them than its socket has."""
    return World(
        profile=_profile(hypothesis, values),
        devices=devices,
        savers=1,
        loaders=1,
        channels=1,
        channel_rate=values["main_rate"],
        link_rate=LINK_RATE,
        chunk=CHUNK,
        rooms=devices,
        base=values["base"],
    )


def _multifd(hypothesis: Hypothesis, values: Mapping[str, float], devices: int, channels: int) -> World:
    """A thread a device at each end, and room for all of the state, as those patches had it."""
    return World(
        profile=_profile(hypothesis, values),
        devices=devices,
        savers=devices,
        loaders=devices,
        channels=channels,
        channel_rate=CHANNEL_RATE,
        link_rate=LINK_RATE,
        chunk=CHUNK,
        rooms=devices * (SIZE // CHUNK + 1),
        base=values["base"],
    )


def _profile(hypothesis: Hypothesis, values: Mapping[str, float]) -> Profile:
    return Profile(
        size=SIZE,
        read=values["read"],
        write=values["write"],
        stop=values.get("stop", STOP),
        load_config=LOAD_CONFIG,
        shared=hypothesis.shared,
    )
