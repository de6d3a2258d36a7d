"""What there is to say of a run's link: what it was, how full, and how each channel shared it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from migpool.lab.run.link.use import LinkUse
from migpool.lab.run.result import RunResult
from migpool.units import RATE_UNIT, count_of, format_duration, format_rate, format_size

LATE: float = 1.0
"""Milliseconds too late that one packet in a hundred may be before a run's numbers come with a warning."""
PARTS = 200
"""Into how many parts a downtime is divided where the use of the link is drawn."""

HEADINGS = ("Connection", "Sent", "Share", "Sent anew", "Round trip", "Least", "Waited for room")


def facts(runs: Sequence[RunResult], shown: Sequence[RunResult]) -> Iterator[tuple[str, str]]:
    """What to tell of the links of some runs.

    Arguments:
        shown: of them, the one of each model that stands for it.
    """
    links = [run.link for run in runs if run.link is not None]
    if links:
        yield "Link", describe(links[0])
    for run in shown:
        if run.link is not None:
            yield "Link use", f"{run.model}: {', '.join(_use(run, run.link))}"
    relays = [link.relay for link in links if link.relay is not None]
    if relays:
        worst = max(relays, key=lambda relay: relay.late_99_ms)
        late, most = (format_duration(one / 1e3) for one in (worst.late_ms, worst.late_99_ms))
        cpu = format_duration(max(relay.cpu_ms for relay in relays) / 1e3)
        yield (
            "Relay",
            f"packets went on {late} too late in the median, 99 of 100 less than {most}; {cpu} of CPU a run",
        )
        overrun = sum(relay.overrun for relay in relays)
        if overrun or worst.late_99_ms > LATE:
            lost = f", and lost {count_of(overrun, 'packet')} unasked" if overrun else ""
            yield "Warning", f"the relay did not keep up: one packet in a hundred was {most} late or more{lost}"
    offsets = [run for run in runs if run.link is not None and run.link.true_downtime_ms is not None]
    if offsets:
        ahead = format_duration(max(run.link.clock_offset_ms for run in offsets if run.link) / 1e3)
        off = max(abs((run.downtime_ms or 0.0) - (run.link.true_downtime_ms or 0.0)) for run in offsets if run.link)
        yield (
            "Clock offset",
            f"the destination's clock is {ahead} ahead; downtimes are at most {format_duration(off / 1e3)} off",
        )


def describe(link: LinkUse) -> str:
    """A link in words."""
    words = ["no limit" if link.rate is None else f"{format_rate(link.rate)} each way"]
    if link.delay_ms:
        jitter = f" (more or less up to {format_duration(link.jitter_ms / 1e3)})" if link.jitter_ms else ""
        words.append(f"{format_duration(link.delay_ms / 1e3)} one way{jitter}")
    if link.loss:
        words.append(f"{100 * link.loss:g} % lost")
    words += [f"a queue of {format_size(link.queue_bytes)}", f"MTU {link.mtu}"]
    return f"{', '.join(words)}; made by {link.by}"


def _use(run: RunResult, link: LinkUse) -> Iterator[str]:
    if run.downtime_ms:
        crossed = _at(link.forth, run.downtime_ms * 1e6) - _at(link.forth, 0)
        rate = crossed / run.downtime_ms * 1e3
        share = f", {100 * rate / link.rate:.0f} % of its rate" if link.rate else ""
        yield f"{format_rate(rate)} over the downtime{share}"
    again, whole = (sum(getattr(one, name) for one in run.connections) for name in ("bytes_again", "bytes"))
    packets = sum(one.packets_again for one in run.connections)
    yield f"{count_of(packets, 'packet')} sent anew ({100 * again / whole if whole else 0:.2g} % of the bytes)"
    if link.dropped:
        yield f"{link.dropped} found no room in a queue"
    channels = run.connections[1:]
    if carried := sum(one.bytes for one in channels):
        shares = [f"{100 * one.bytes / carried:.0f}" for one in channels]
        yield f"its channels ({channels[0].congestion}) had {', '.join(shares)} % of it"


def rows(run: RunResult) -> list[list[str]]:
    """A row for each connection, under :data:`HEADINGS`."""
    whole = sum(one.bytes for one in run.connections)
    return [
        [
            "main channel" if one.name == "main" else f"channel {one.name}",
            format_size(one.bytes),
            f"{100 * one.bytes / whole:.0f} %" if whole else "",
            count_of(one.packets_again, "packet"),
            format_duration(one.rtt_ms / 1e3),
            format_duration(one.least_rtt_ms / 1e3),
            format_duration((one.peer_full_ms + one.own_full_ms) / 1e3),
        ]
        for one in run.connections
    ]


def over_time(run: RunResult) -> list[JsonValue]:
    """[ms, rate from the source, and to it, in ``RATE_UNIT``] for each part of the downtime; empty without a link."""
    if run.link is None or not run.downtime_ms:
        return []
    step = run.downtime_ms * 1e6 / PARTS
    found: list[JsonValue] = []
    for part in range(PARTS):
        ways = [_at(way, (part + 1) * step) - _at(way, part * step) for way in (run.link.forth, run.link.back)]
        found.append(
            [round((part + 0.5) * step / 1e6, 4), *(round(count / step * 1e9 / RATE_UNIT, 3) for count in ways)]
        )
    return found


def _at(counted: Sequence[tuple[int, int]], moment: float) -> float:
    """What a counter was at a moment, on the line between the two looks around it."""
    after = bisect_right(counted, (moment, float("inf")))
    if not 0 < after < len(counted):
        return float(counted[min(after, len(counted) - 1)][1]) if counted else 0.0
    (begin, low), (end, high) = counted[after - 1 : after + 1]
    return low + (high - low) * (moment - begin) / (end - begin)
