"""Device state by description: declare it in Python like a table, or take it from a recorded migration stream.

* To write a device, subclass :class:`DescribedDevice` and give it a :class:`Description`, made of the kinds in
  :mod:`migpool.vmsd.fields`.
* To migrate the devices of a real machine, name the plug-in ``vmsd`` in a scenario; see :func:`devices`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from migpool.device import Device, DeviceContext, OptionValue
from migpool.errors import DescriptionError, UsageError
from migpool.vmsd.description import Description
from migpool_plugins.vmsd.capture import CapturedSection, machine_names, read_machine, read_stream
from migpool_plugins.vmsd.device import CapturedDevice, DescribedDevice
from migpool_plugins.vmsd.needs import after, needs_of

__all__ = ["CapturedDevice", "DescribedDevice", "Description", "DescriptionError", "devices"]

_OPTIONS = ("exclude", "include", "machine", "stream")


def devices(context: DeviceContext) -> list[Device]:
    """The devices of a real machine, from a recorded migration stream with its own description.

    Options, of which one of the first two is needed:

    * ``machine``: the name of a captured machine that comes with the plug-in, such as ``"q35-rich"``.
    * ``stream``: the path of a recorded stream.
    * ``include``, ``exclude``: patterns (``*``, ``?``) or lists of them for the idstr of a device; the first one keeps
      only what it matches, the second one drops what it matches.

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
    if context.count != 1:
        raise UsageError(f"vmsd: count is {context.count}, but a capture holds every device once; leave it at 1")
    include, exclude = _patterns(options, "include"), _patterns(options, "exclude")
    found = _captured(options)
    made: list[Device] = [
        CapturedDevice(section, context.side, needs_of(section), after(section, found[:place]))
        for place, section in enumerate(found)
        if (include is None or _matches(section, include)) and not _matches(section, exclude or ())
    ]
    if not made:
        raise UsageError("vmsd: include and exclude leave no device of the capture")
    return made


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
