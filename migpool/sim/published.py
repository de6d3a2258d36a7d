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

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Final

from migpool.sim.simulate import Profile, World, downtime
from migpool.sim.world import Shared
from migpool.units import MIB, format_rate

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
    channels = {count: downtime(_world(hypothesis, values, 4, count)) for count in CHANNELS}
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
    found = {("main channel", count): downtime(_world(hypothesis, values, count)) for count in COUNTS}
    return found | {("multifd", count): downtime(_world(hypothesis, values, count, 6)) for count in COUNTS}


def _world(hypothesis: Hypothesis, values: Mapping[str, float], devices: int, channels: int = 0) -> World:
    """A thread a device at each end, and room for all of the state, as those patches had it.

    Without multifd channels one thread at each end, one channel, and no more room between them than its socket has.
    """
    profile = Profile(
        size=SIZE,
        read=values["read"],
        write=values["write"],
        stop=values.get("stop", STOP),
        load_config=LOAD_CONFIG,
        shared=hypothesis.shared,
    )
    return World(
        devices=(profile,) * devices,
        savers=devices if channels else 1,
        loaders=devices if channels else 1,
        channels=channels or 1,
        channel_rate=CHANNEL_RATE if channels else values["main_rate"],
        link_rate=LINK_RATE,
        chunk=CHUNK,
        rooms=devices * (SIZE // CHUNK + 1) if channels else devices,
        base=values["base"],
    )


FIRST_STEP = 1.4
LAST_STEP = 1.005
HELPS = 0.999


def fit(
    start: Mapping[str, float], simulate: Callable[[Mapping[str, float]], Sequence[float]], measured: Sequence[float]
) -> dict[str, float]:
    """Find the values under which simulated times come out as measured ones.

    A pattern search: each value in turn is tried a step larger and a step smaller, a step that helps is kept, and when
    none does the steps become smaller. A step helps if the error becomes less by a thousandth: a value that hardly
    matters would else wander off for ever. Values and errors are taken by their ratios, since what is fitted spans
    magnitudes. It needs no derivative, which a simulation with queues does not have, and no other package.

    Arguments:
        start: a first guess for each value, over 0.
        simulate: the times that some values give, in the order of ``measured``.
        measured: what they should be, over 0.

    Returns:
        the values with the least sum of squared logarithms of simulated over measured that was found.
    """
    values = dict(start)
    best = _error(simulate(values), measured)
    step = FIRST_STEP
    while step > LAST_STEP:
        improved = False
        for name in values:
            for factor in (step, 1 / step):
                tried = {**values, name: values[name] * factor}
                error = _error(simulate(tried), measured)
                if error < best * HELPS:
                    values, best, improved = tried, error, True
                    break
        if not improved:
            step = step**0.5
    return values


def _error(simulated: Sequence[float], measured: Sequence[float]) -> float:
    return sum(log(time / wanted) ** 2 for time, wanted in zip(simulated, measured, strict=True))


def rows(found: Sequence[Fit]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for what was published and for each hypothesis."""
    keys = sorted(PUBLISHED)
    heading = [
        "what devices share",
        *(f"{'main' if way == 'main channel' else way} {count}" for way, count in keys),
        "off",
    ]
    told = [["(published)", *(_ms(PUBLISHED[key]) for key in keys), ""]]
    told += [[one.hypothesis.name, *(_ms(one.downtimes[key]) for key in keys), f"{one.worst:.0%}"] for one in found]
    return heading, told


def values(one: Fit) -> str:
    """What was fitted."""
    times = ", ".join(
        f"{name} {_ms(one.values[name])} ms" for name in ("read", "write", "stop", "base") if name in one.values
    )
    return f"{times}, main channel {format_rate(one.values['main_rate'])}"


def json_of(found: Sequence[Fit], said: str) -> str:
    """``{"schema": 1, "conclusion", "hypotheses": [{"name", "worst", "values", "downtimes": [{"way", "devices", "ms",
    "published_ms"}], "channels": {"6": ms ...}}]}``."""
    form = {
        "schema": 1,
        "conclusion": said,
        "hypotheses": [
            {
                "name": one.hypothesis.name,
                "worst": one.worst,
                "values": dict(one.values),
                "downtimes": [
                    {"way": way, "devices": count, "ms": time * 1e3, "published_ms": PUBLISHED[way, count] * 1e3}
                    for (way, count), time in one.downtimes.items()
                ],
                "channels": {str(count): time * 1e3 for count, time in one.channels.items()},
            }
            for one in found
        ],
    }
    return json.dumps(form, indent=2) + "\n"


def page(found: Sequence[Fit], said: str) -> str:
    """All of it as a page of Markdown; ``said`` is the conclusion."""
    heading, table = rows(found)
    lines = ["# The published downtimes, simulated", "", f"{said}", ""]
    lines += [f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}"]
    lines += [f"| {' | '.join(row)} |" for row in table]
    lines += ["", "Downtime in ms of 1, 2 and 4 devices; the last column is the largest deviation.", ""]
    lines += [" ".join((__doc__ or "").split()), ""]
    lines += [f"* {one.hypothesis.name}: {values(one)}" for one in found]
    lines += ["", "Four devices by number of channels, not fitted:", ""]
    lines.append(f"* published: {_channels(CHANNELS)}")
    lines += [f"* {one.hypothesis.name}: {_channels(one.channels)}" for one in found]
    return "\n".join(lines) + "\n"


def _channels(times: Mapping[int, float]) -> str:
    return ", ".join(f"{count}: {_ms(time)} ms" for count, time in times.items())


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"
