"""Shows an explanation on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from migpool.streams.record.explanation import Explanation
from migpool.units import format_moment, format_size

_BARS: Final = " ▁▂▃▄▅▆▇█"
_WIDTH: Final = 24
_PACKETS_SHOWN: Final = 16
"""Of each channel."""


def show(explanation: Explanation, console: Console) -> None:
    """Print an explanation.

    Arguments:
        console: where to.
    """
    print_line(console, f"{explanation.directory}: {explanation.listen} to {explanation.to}, {explanation.began}")
    state = "complete" if explanation.complete else f"NOT COMPLETE: {explanation.reason}"
    machine = explanation.machine or "unknown"
    print_line(console, f"machine {machine}, {format_moment(explanation.duration)}, {state}")
    for name, meaning in explanation.capabilities.items():
        print_line(console, f"capability {name}: {meaning or 'not known here'}")
    console.print(_channels(explanation))
    if explanation.evenness:
        line = f"busiest multifd channel: {explanation.evenness:.2f} times the mean"
        if explanation.switchover_evenness:
            line += f", {explanation.switchover_evenness:.2f} times in the switchover"
        print_line(console, line)
    if explanation.devices:
        console.print(_devices(explanation))
    for line in _packets(explanation):
        print_line(console, line)
    for line in _switchover(explanation):
        print_line(console, line)
    for line in _answers(explanation):
        print_line(console, line)
    for one in explanation.channels:
        if one.compression:
            print_line(console, f"{one.name}: pages are packed by {one.compression}")
        if one.trouble:
            print_line(console, f"{one.name}: not understood from here on: {one.trouble}")


def print_line(console: Console, line: str) -> None:
    """Print a line as it is: what a recording says is no markup."""
    console.print(Text(line), soft_wrap=True)


def _table(first: str, numbers: Sequence[str], last: str, *, no_wrap: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, no_wrap=no_wrap)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(last, no_wrap=no_wrap)
    return table


def _channels(explanation: Explanation) -> Table:
    numbers = ("Sent", "Packets", "Pages", "Zero", "SYNC", "Device")
    table = _table("Channel", numbers, "Bytes over time", no_wrap=True)
    for one in explanation.channels:
        counts = (one.packets, one.pages, one.zero_pages, one.syncs, one.device_packets)
        table.add_row(
            Text(one.name),
            format_size(one.bytes),
            *(str(count) if count else "" for count in counts),
            _bars(one.bytes_over_time),
        )
    return table


def _bars(series: Sequence[int]) -> str:
    each = -(-len(series) // _WIDTH)
    sums = [sum(series[at : at + each]) for at in range(0, len(series), each)]
    most = max(sums, default=0)
    return "".join(_BARS[-(-amount * (len(_BARS) - 1) // most)] if most else " " for amount in sums)


def _devices(explanation: Explanation) -> Table:
    table = _table("Device", ("Packets", "State", "From", "To"), "Channels", no_wrap=False)
    table.add_column("What", no_wrap=True)
    for one in explanation.devices:
        name = f"{one.idstr}#{one.instance_id}" if one.instance_id else one.idstr
        channels = ", ".join(map(str, sorted(one.channels)))
        table.add_row(
            Text(name),
            str(one.packets),
            format_size(one.bytes),
            format_moment(one.first),
            format_moment(one.last),
            channels,
            one.what,
        )
    return table


def _packets(explanation: Explanation) -> list[str]:
    """The packets with device state, channel by channel, in the order in which they came."""
    lines = []
    for channel in explanation.channels:
        found = [one for one in explanation.device_packets if one.channel == channel.channel]
        for one in found[:_PACKETS_SHOWN]:
            name = f"{one.idstr}#{one.instance_id}" if one.instance_id else one.idstr
            flags = ", config" if one.flags else ""
            lines.append(
                f"{channel.name}: {format_moment(one.when)} {name} index {one.index}, flags {one.flags}{flags}, "
                f"{one.size} bytes at byte {one.offset}"
            )
        if channel.device_packets > _PACKETS_SHOWN:
            lines.append(f"{channel.name}: and {channel.device_packets - _PACKETS_SHOWN} packets more (--json)")
    return lines


def _switchover(explanation: Explanation) -> list[str]:
    times = explanation.switchover
    names = {"SWITCHOVER_START": times.begin, "END of ram": times.ram_end, "EOF": times.eof, "SHUT": times.shut}
    known = [f"{name} at {format_moment(when)}" for name, when in names.items() if when is not None]
    if times.begin is None:
        return [
            f"switchover: without SWITCHOVER_START, so its beginning is not known{'; ' if known else ''}"
            f"{', '.join(known)}"
        ]
    took = f"; {format_moment(times.end - times.begin)} in all" if times.end is not None else ""
    return [f"switchover: {', '.join(known)}{took}"]


def _answers(explanation: Explanation) -> list[str]:
    lines = [f"return path: {format_moment(one.when)} {one.text}" for one in explanation.answers]
    if explanation.answers_left_out:
        lines.append(f"return path: and {explanation.answers_left_out} messages more")
    if explanation.grants:
        lines.append(f"return path: {explanation.grants} GRANTs")
    return lines or ["return path: nothing was said"]
