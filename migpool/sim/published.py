"""The published downtimes, and what it takes to explain them.

Two hosts, 100 GbE, a guest of 15 GiB, ConnectX-7 virtual functions of about 100 MiB of device state each; the 25th
percentile of 70 to 100 migrations. Once the device state goes over the main channel, one device after the other; once
over six multifd channels, with a thread a device at each end. One profile must explain all six numbers. Asked and never
answered was why four devices with everything in parallel do not take the time of one.

Each hypothesis says what the devices share besides the big lock, under which a config loads in 70 ms (published).
Fitted are how long a device's state takes to read and to write, how fast the main channel takes it, and what the
downtime has besides the devices. Two hypotheses share nothing: one lets the serial stops take what they need, the other
has each config's load take longer by the same time for every one that was loaded before it.

A fit with four or five values to six numbers proves little. So each number is also held back in turn and predicted by a
fit to the other five, and the table of an earlier version of the patches, which no fit to this one has seen, is fitted
by itself: a hypothesis that is right explains both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from migpool.sim.fit import fit
from migpool.sim.simulate import Profile, World, downtime
from migpool.sim.world import Shared
from migpool.units import MIB, format_rate

SIZE: Final = 100 * MIB
CHUNK: Final = 10 * MIB
"""Larger than real ones, to simulate faster: what is done in turn and what at once does not depend on it."""
LINK_RATE: Final = 12.5e9
CHANNEL_RATE: Final = 5e9
GOOD: Final = 0.10
"""How far from a published downtime a simulated one may be to count as an explanation: the published tables differ by
more from one version of the patches to the next."""
STOP: Final = 0.005
LOAD_CONFIG: Final = 0.070
Downtimes: TypeAlias = Mapping[tuple[str, int], float]
"""Downtimes in seconds by way and number of devices."""

PUBLISHED: Final[Downtimes] = {
    ("main channel", 4): 1.900,
    ("main channel", 2): 0.859,
    ("main channel", 1): 0.487,
    ("multifd", 4): 1.095,
    ("multifd", 2): 0.556,
    ("multifd", 1): 0.366,
}
EARLIER: Final[Downtimes] = {
    ("main channel", 4): 1.783,
    ("main channel", 2): 0.614,
    ("main channel", 1): 0.283,
    ("multifd", 4): 1.068,
    ("multifd", 2): 0.434,
    ("multifd", 1): 0.274,
}
"""Of an earlier version of the patches: the shortest of some runs each."""

CHANNELS: Final[Mapping[int, float]] = {6: 1.095, 8: 1.104, 15: 1.125}
"""Downtimes in seconds of four devices over multifd, by number of channels; not fitted, but to be predicted."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What might explain the downtimes.

    Arguments:
        shared: what devices of one host do one at a time.
        also: what is fitted besides: ``stop`` instead of the 5 ms of the device profiles, or ``growth`` of the configs'
            loads, and from what it starts.
    """

    name: str
    shared: Shared = "nothing"
    also: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one hypothesis explains them.

    Arguments:
        published: what was fitted to.
        values: what was fitted: ``read``, ``write``, ``base`` and perhaps ``stop`` or ``growth`` in seconds,
            ``main_rate`` in bytes a second.
        downtimes: simulated.
        held: each predicted by a fit to the others.
        channels: the same for four devices by number of channels.
    """

    hypothesis: Hypothesis
    published: Downtimes
    values: Mapping[str, float]
    downtimes: Downtimes
    held: Downtimes
    channels: Mapping[int, float]

    @property
    def worst(self) -> float:
        """The largest deviation from a published downtime, as a share of it."""
        return _worst(self.downtimes, self.published)

    @property
    def worst_held(self) -> float:
        """The same of those that were held back."""
        return _worst(self.held, self.published)


def _worst(found: Downtimes, published: Downtimes) -> float:
    return max((abs(time / published[key] - 1) for key, time in found.items()), default=0.0)


def hypotheses() -> list[Hypothesis]:
    """All that are tried."""
    return [
        Hypothesis("nothing but the big lock"),
        Hypothesis("a lock for reads", "reads"),
        Hypothesis("a lock for writes", "writes"),
        Hypothesis("a lock for reads and one for writes", "reads and writes"),
        Hypothesis("nothing, but stops of any length, one after the other", also={"stop": 0.1}),
        Hypothesis("nothing, but each config loads slower than the one before", also={"growth": 0.05}),
    ]


def explain(
    hypothesis: Hypothesis, published: Downtimes = PUBLISHED, held_back: Iterable[tuple[str, int]] | None = None
) -> Fit:
    """Fit one hypothesis to a table; takes up to half a minute.

    Arguments:
        held_back: which numbers are predicted from the others; ``None`` for each.
    """
    start = {"read": 0.2, "write": 0.2, "base": 0.1, "main_rate": 1e9, **hypothesis.also}

    def fitted(begin: Mapping[str, float], keys: Sequence[tuple[str, int]]) -> dict[str, float]:
        return fit(begin, lambda tried: _simulated(hypothesis, tried, keys), [published[key] for key in keys])

    keys = list(published)
    values = fitted(start, keys)
    held = {}
    for key in keys if held_back is None else held_back:
        (held[key],) = _simulated(hypothesis, fitted(values, [one for one in keys if one != key]), [key])
    channels = {count: downtime(_world(hypothesis, values, 4, count)) for count in CHANNELS}
    simulated = dict(zip(keys, _simulated(hypothesis, values, keys), strict=True))
    return Fit(hypothesis, published, values, simulated, held, channels)


def conclusion(found: Sequence[Fit], earlier: Sequence[Fit]) -> str:
    """What all of them together say, in some sentences.

    Arguments:
        found, earlier: the fits to the two tables.
    """
    good = [one for one in found if one.worst <= GOOD]
    if not good:
        best = min(found, key=lambda one: one.worst)
        return f"None explains the published downtimes; the nearest is {_told(best)}."
    said = f"Within {GOOD:.0%} of every published downtime: {_all_told(good)}."
    if bad := [one for one in found if one.worst > GOOD]:
        said += f" Not so: {_all_told(bad)}."
    best, *others = sorted(good, key=lambda one: one.worst_held)
    said += f" With each predicted from the other five, {best.hypothesis.name} is at most {best.worst_held:.0%} off"
    said += f", the next {others[0].worst_held:.0%}." if others else "."
    fits = [one for one in earlier if one.worst <= GOOD]
    fails = [one for one in earlier if one.worst > GOOD]
    if fits:
        said += f" So the earlier table: {_all_told(fits)}."
    if fails:
        said += f" Not the earlier table: {_all_told(fails)}."
    return said


def _all_told(fits: Sequence[Fit]) -> str:
    return "; ".join(map(_told, fits))


def _told(one: Fit) -> str:
    return f"{one.hypothesis.name} (at most {one.worst:.0%} off)"


def _simulated(hypothesis: Hypothesis, values: Mapping[str, float], keys: Sequence[tuple[str, int]]) -> list[float]:
    return [downtime(_world(hypothesis, values, count, 6 if way == "multifd" else 0)) for way, count in keys]


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
        load_growth=values.get("growth", 0.0),
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


def rows(found: Sequence[Fit]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for what was published and for each hypothesis."""
    published = found[0].published
    keys = sorted(published)
    heading = [
        "what devices share",
        *(f"{'main' if way == 'main channel' else way} {count}" for way, count in keys),
        "off",
        "held back, off",
    ]
    told = [["(published)", *(_ms(published[key]) for key in keys), "", ""]]
    told += [
        [
            one.hypothesis.name,
            *(_ms(one.downtimes[key]) for key in keys),
            f"{one.worst:.0%}",
            f"{one.worst_held:.0%}",
        ]
        for one in found
    ]
    return heading, told


def values(one: Fit) -> str:
    """What was fitted."""
    names = ("read", "write", "stop", "growth", "base")
    times = ", ".join(f"{name} {_ms(one.values[name])} ms" for name in names if name in one.values)
    return f"{times}, main channel {format_rate(one.values['main_rate'])}"


def json_of(found: Sequence[Fit], earlier: Sequence[Fit], said: str) -> str:
    """``{"schema": 1, "conclusion", "hypotheses": [{"name", "worst", "worst_held", "values", "downtimes": [{"way",
    "devices", "ms", "held_ms", "published_ms"}], "channels": {"6": ms ...}}], "earlier": as "hypotheses"}``."""
    form = {
        "schema": 1,
        "conclusion": said,
        "hypotheses": [_form(one) for one in found],
        "earlier": [_form(one) for one in earlier],
    }
    return json.dumps(form, indent=2) + "\n"


def _form(one: Fit) -> dict[str, object]:
    return {
        "name": one.hypothesis.name,
        "worst": one.worst,
        "worst_held": one.worst_held,
        "values": dict(one.values),
        "downtimes": [
            {
                "way": way,
                "devices": count,
                "ms": time * 1e3,
                "held_ms": one.held[way, count] * 1e3,
                "published_ms": one.published[way, count] * 1e3,
            }
            for (way, count), time in one.downtimes.items()
        ],
        "channels": {str(count): time * 1e3 for count, time in one.channels.items()},
    }


def page(found: Sequence[Fit], earlier: Sequence[Fit], said: str) -> str:
    """All of it as a page of Markdown; ``said`` is the conclusion."""
    lines = ["# The published downtimes, simulated", "", f"{said}", ""]
    lines += [
        *_markdown(found),
        "",
        "Downtime in ms of 1, 2 and 4 devices; the last columns are the largest deviations.",
        "",
    ]
    lines += [" ".join((__doc__ or "").split()), ""]
    lines += [f"* {one.hypothesis.name}: {values(one)}" for one in found]
    lines += ["", "Predicted each from the other five, in ms:", ""]
    lines += [f"* {one.hypothesis.name}: {_held(one)}" for one in found]
    lines += ["", "Four devices by number of channels, not fitted:", ""]
    lines.append(f"* published: {_channels(CHANNELS)}")
    lines += [f"* {one.hypothesis.name}: {_channels(one.channels)}" for one in found]
    if earlier:
        lines += ["", "## An earlier version of the patches", "", *_markdown(earlier), ""]
        lines += [f"* {one.hypothesis.name}: {values(one)}" for one in earlier]
    return "\n".join(lines) + "\n"


def _markdown(found: Sequence[Fit]) -> list[str]:
    heading, table = rows(found)
    return [f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}", *(f"| {' | '.join(row)} |" for row in table)]


def _held(one: Fit) -> str:
    return ", ".join(
        f"{way} {count}: {_ms(time)} ({time / one.published[way, count] - 1:+.0%})"
        for (way, count), time in sorted(one.held.items())
    )


def _channels(times: Mapping[int, float]) -> str:
    return ", ".join(f"{count}: {_ms(time)} ms" for count, time in times.items())


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"
