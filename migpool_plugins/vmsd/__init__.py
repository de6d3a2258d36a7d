"""Device state by description: declare it in Python like a table, or take it from a recorded migration stream.

* To write a device, subclass :class:`DescribedDevice` and give it a :class:`Description`, made of the kinds in
  :mod:`migpool.vmsd.fields`.
* To migrate the devices of a real machine, name the plug-in ``vmsd`` in a scenario; see :func:`devices`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import count, islice
from pathlib import Path

from migpool.device import ConfigLock, Device, DeviceContext, DeviceError, OptionValue
from migpool.errors import DescriptionError, UsageError
from migpool.vmsd.description import Description
from migpool_plugins.options import Options
from migpool_plugins.vmsd.capture import CapturedSection, machine_names, read_machine, read_stream
from migpool_plugins.vmsd.device import CapturedDevice, DescribedDevice
from migpool_plugins.vmsd.needs import after, needs_of

__all__ = ["CapturedDevice", "DescribedDevice", "Description", "DescriptionError", "devices"]

_OPTIONS = ("config_lock", "config_time", "copies", "exclude", "include", "machine", "stream")
_MOST_COPIES = 4096


def devices(context: DeviceContext) -> list[Device]:
    """The devices of a real machine, from a recorded migration stream with its own description.

    Options, of which one of the first two is needed:

    * ``machine``: the name of a captured machine that comes with the plug-in, such as ``"q35-rich"``.
    * ``stream``: the path of a recorded stream.
    * ``include``, ``exclude``: patterns (``*``, ``?``) or lists of them for the idstr of a device; the first one keeps
      only what it matches, the second one drops what it matches.

    * ``copies``: how many of each device there are; the others have the next instance ids that are free.
    * ``config_lock``: ``"big"``, ``"own"`` or ``"none"``: what their configs need, whatever is known of them.
    * ``config_time``: how long each save and each load of a config takes besides ("1ms"), as work of a kernel or of
      hardware would.

    Both ends must be given the same capture. The source's devices hold the captured values, the destination's start
    without any. See :class:`CapturedDevice` for what a capture cannot know. What lock a config needs, and what it is
    loaded after, comes from a table of known devices (:mod:`migpool_plugins.vmsd.needs`).

    Arguments:
        context: which end this is, and the options.

    Returns:
        One device for each FULL section, in the order of the stream.

    Raises:
        UsageError: an option is wrong, or nothing is left by the patterns.
        DescriptionError: the stream cannot be used.
    """
    options = context.options
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise UsageError(f"vmsd: unknown option {unknown[0]!r}; known: {', '.join(_OPTIONS)}")
    try:
        read = Options("vmsd", options, _OPTIONS)
        copies = read.whole("copies", 1, 1, _MOST_COPIES)
        locks: tuple[ConfigLock, ...] = ("big", "own", "none")
        lock = read.one_of("config_lock", locks) if "config_lock" in options else None
        seconds = read.seconds("config_time")
    except DeviceError as error:
        raise UsageError(str(error)) from None
    if context.count != 1:
        raise UsageError(f"vmsd: count is {context.count}, but a capture holds every device once; leave it at 1")
    include, exclude = _patterns(options, "include"), _patterns(options, "exclude")
    found = list(_copied(_captured(options), copies))
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
    return [*made]


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


def _captured(options: Mapping[str, OptionValue]) -> list[CapturedSection]:
    machine, stream = options.get("machine"), options.get("stream")
    if isinstance(machine, str) and stream is None:
        return read_machine(machine)
    if isinstance(stream, str) and machine is None:
        return read_stream(Path(stream))
    raise UsageError(
        f"vmsd: give either machine (one of {', '.join(machine_names())}) or stream (the path of a recorded stream)"
    )


def _patterns(options: Mapping[str, OptionValue], key: str) -> list[str] | None:
    value = options.get(key)
    if value is None:
        return None
    patterns = [value] if isinstance(value, str) else value
    if isinstance(patterns, Sequence) and all(isinstance(pattern, str) for pattern in patterns):
        return [str(pattern) for pattern in patterns]
    raise UsageError(f"vmsd: {key} is {value!r}; it must be a pattern or a list of patterns")


def _matches(section: CapturedSection, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(section.name, pattern) for pattern in patterns)
