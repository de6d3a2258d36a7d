"""Device state by description: declare it in Python like a table, or take it from a recorded migration stream.

* To write a device, subclass :class:`DescribedDevice` and give it a :class:`Description`, made of the kinds in
  :mod:`migpool.vmsd.fields`.
* To migrate the devices of a real machine, name the plug-in ``vmsd`` in a scenario; see :func:`devices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import count, islice
from pathlib import Path

from migpool.device import (
    ConfigLock,
    Device,
    DeviceContext,
    DeviceError,
    GivenOptions,
    Option,
    Options,
    Outline,
    Side,
    StateCosts,
)
from migpool.errors import DescriptionError, UsageError
from migpool.vmsd.description import Description
from migpool_plugins.vmsd.capture import CapturedSection, machine_names, read_machine, read_stream
from migpool_plugins.vmsd.device import CapturedDevice, DescribedDevice
from migpool_plugins.vmsd.memory import CapturedMemory
from migpool_plugins.vmsd.needs import after, needs_of

__all__ = ["OPTIONS", "CapturedDevice", "DescribedDevice", "Description", "DescriptionError", "devices"]


def _patterns(value: object) -> list[str]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError
    return [str(pattern) for pattern in patterns]


def _choice(name: str, meaning: str) -> Option[list[str] | None]:
    values = "a pattern or a list of patterns"
    return Option(name, "text or list", None, f"{meaning}: * and ? stand for others", values, parse=_patterns)


_LOCKS: tuple[ConfigLock, ...] = ("big", "own", "none")
_MACHINE: Option[object] = Option("machine", "text", None, "a captured machine that comes with the plug-in", "its name")
_STREAM: Option[object] = Option("stream", "text", None, "instead of it, a recorded stream", "the path of its file")
_INCLUDE = _choice("include", "keep the devices alone whose idstr matches one")
_EXCLUDE = _choice("exclude", "drop the devices whose idstr matches one")
_COPIES = Option.whole(
    "copies", 1, "how many of each device there are, each with the next instance id that is free", least=1, most=4096
)
_LOCK = Option[ConfigLock | None].one_of("config_lock", None, "what configs need, whatever is known of them", _LOCKS)
_TIME = Option.seconds(
    "config_time",
    0.0,
    "how long each save and each load of a config takes besides, as work of a kernel or of hardware would",
)
_MEMORY = Option.flag("memory", False, "hold the machine's memory, too: the blocks of the stream and their pages")
OPTIONS = Options("vmsd", _MACHINE, _STREAM, _MEMORY, _INCLUDE, _EXCLUDE, _COPIES, _LOCK, _TIME)


def devices(context: DeviceContext) -> list[Device]:
    """The devices of a real machine, from a recorded migration stream with its own description.

    Both ends must be given the same capture. The source's devices hold the captured values, the destination's start
    without any. See :class:`CapturedDevice` for what a capture cannot know. What lock a config needs, and what it is
    loaded after, comes from a table of known devices (:mod:`migpool_plugins.vmsd.needs`).

    Arguments:
        context: which end this is, and the options.

    Returns:
        The memory, if it is asked for, and one device for each FULL section, in the order of the stream.

    Raises:
        UsageError: an option is wrong, or nothing is left by the patterns.
        DescriptionError: the stream cannot be used.
    """
    try:
        given = OPTIONS.read(context.options)
        copies, lock, seconds = given[_COPIES], given[_LOCK], given[_TIME]
        include, exclude, memory = given[_INCLUDE], given[_EXCLUDE], given[_MEMORY]
    except DeviceError as error:
        raise UsageError(str(error)) from None
    if context.count != 1:
        raise UsageError(f"vmsd: count is {context.count}, but a capture holds every device once; leave it at 1")
    found = list(_copied(_captured(given), copies))
    made = [
        CapturedDevice(section, context.side, needs_of(section), after(section, found[:place]))
        for place, section in enumerate(found)
        if (include is None or _matches(section, include)) and not _matches(section, exclude or ())
    ]
    if not made:
        raise UsageError("vmsd: include and exclude leave no device of the capture")
    for device in made:
        device.config_time = seconds
        if lock is not None:
            device.save_lock = device.load_lock = lock
    return [*(_memory(given[_STREAM], context.side) if memory else ()), *made]


def _memory(stream: object, side: Side) -> list[Device]:
    if not isinstance(stream, str):
        raise UsageError("vmsd: the machines that come with the plug-in have no memory: give a stream for it")
    return [CapturedMemory(Path(stream), side)]


def outlines(context: DeviceContext) -> list[Outline]:
    """What the devices of a capture would be and take, for the simulator: their configs, and the option config_time."""
    without = {name: value for name, value in context.options.items() if name != _MEMORY.name}
    return [
        Outline(
            StateCosts(save_config=device.config_time, load_config=device.config_time),
            config_size=len(device.save_config()),
            config_lock=device.save_lock,
            config_channel=device.config_channel,
        )
        for device in devices(replace(context, side="source", options=without))
        if isinstance(device, CapturedDevice)
    ]


def _copied(sections: Sequence[CapturedSection], copies: int) -> Iterator[CapturedSection]:
    """Each section, and as many more with other instance ids as there are to be copies of it."""
    taken = {(section.name, section.instance_id) for section in sections}
    for section in sections:
        yield section
        free = (number for number in count() if (section.name, number) not in taken)
        for number in islice(free, copies - 1):
            taken.add((section.name, number))
            entry = {**section.entry, "instance_id": number}
            yield replace(section, instance_id=number, entry=entry)


def _captured(given: GivenOptions) -> list[CapturedSection]:
    machine, stream = given[_MACHINE], given[_STREAM]
    if isinstance(machine, str) and stream is None:
        return read_machine(machine)
    if isinstance(stream, str) and machine is None:
        return read_stream(Path(stream))
    raise UsageError(
        f"vmsd: give either machine (one of {', '.join(machine_names())}) or stream (the path of a recorded stream)"
    )


def _matches(section: CapturedSection, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(section.name, pattern) for pattern in patterns)
