"""Finds devices and threading models: what the installed packages announce as entry points.

A package announces a device in the group ``migpool.devices`` (see :mod:`migpool.device`) and a threading model, a
subclass of :class:`~migpool.schedulers.base.Scheduler`, in ``migpool.schedulers``. Nothing is imported before it is
asked for, so a plug-in that is broken hurts only who uses it; :func:`describe` names it with its error.
"""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from traceback import extract_tb
from typing import Final, Literal, TypeAlias, cast

from migpool.core.device_calls import noted
from migpool.core.plugin_errors import located, raised, said, wrong
from migpool.device import Device, DeviceContext, DevicePlugin, Options, OptionValue, Outline
from migpool.errors import MigpoolError, PluginError, UsageError
from migpool.scenario.messages import parse_toml
from migpool.schedulers.base import Scheduler

Kind: TypeAlias = Literal["device", "scheduler"]

_GROUPS: Final[dict[Kind, str]] = {"device": "migpool.devices", "scheduler": "migpool.schedulers"}
_WORDS: Final[dict[Kind, str]] = {"device": "device plug-in", "scheduler": "threading model"}


@dataclass(frozen=True, slots=True)
class Plugin:
    """What is known of one plug-in.

    Attributes:
        name: what a scenario or the command line calls it.
        target: where it is, as ``module:attribute``.
        distribution: the package that announces it; empty if that is not known.
        summary: the first line of its docstring; empty if it is broken.
        error: why it cannot be used, in one line; empty if it can.
    """

    kind: Kind
    name: str
    target: str
    distribution: str
    version: str
    summary: str
    error: str


def names(kind: Kind) -> list[str]:
    """The names of all plug-ins of a kind, sorted; nothing is imported."""
    return sorted({point.name for point in _announced(kind)})


def describe() -> list[Plugin]:
    """Import every plug-in and say what it is, or why it cannot be used; sorted by kind and name."""
    return [
        _described(kind, point)
        for kind in _GROUPS
        for point in sorted(_announced(kind), key=lambda point: (point.name, point.value))
    ]


def named(name: str) -> list[Plugin]:
    """What is known of the plug-ins of a name: a device, a threading model, or one of each.

    Raises:
        UsageError: there is none.
    """
    found = [plugin for plugin in describe() if plugin.name == name]
    if not found:
        there = [*names("device"), *names("scheduler")]
        near = difflib.get_close_matches(name, there, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": there are {', '.join(there)}"
        raise UsageError(f"there is no plug-in {name!r}{hint}")
    return found


def options_of(name: str) -> list[Options]:
    """The options that a device plug-in declares: ``OPTIONS`` beside its function, of which there may be several.

    Raises:
        PluginError: there is no such plug-in, it is broken, or what it declares are no options.
    """
    module, found = _beside(name, "OPTIONS")
    tables = found if isinstance(found, list | tuple) else [] if found is None else [found]
    declared = [one for one in tables if isinstance(one, Options)]
    if len(declared) < len(tables):
        raise PluginError(
            f"device plug-in {name!r}: {module}.OPTIONS must be migpool.device.Options, or a list of them"
        )
    return [one for one in declared if one.plugin == name]


def _beside(name: str, attribute: str) -> tuple[str, object]:
    """The module of a device plug-in's function, and what has that name in it; ``None`` if nothing has."""
    load_device_plugin(name)
    (module,) = {point.module for point in _announced("device").select(name=name)}
    return module, getattr(sys.modules[module], attribute, None)


def outliner(name: str) -> Callable[[DeviceContext], list[Outline]]:
    """What says what a plug-in's devices would be and take: the function ``outlines`` beside its own.

    It raises as the plug-in's function does, and PluginError if what it returned are no outlines.

    Raises:
        PluginError: there is no such plug-in, or it is broken.
        UsageError: it has no such function: its devices cannot be simulated.
    """
    module, function = _beside(name, "outlines")
    if not callable(function):
        raise UsageError(f"device plug-in {name!r} does not say what its devices take: they cannot be simulated")

    def outlined(context: DeviceContext) -> list[Outline]:
        found = list(function(context))
        if not all(isinstance(one, Outline) for one in found):
            raise PluginError(f"device plug-in {name!r}: {module}.outlines must return migpool.device.Outline alone")
        return found

    return outlined


def distribution(kind: Kind, name: str) -> str:
    """The package that announces a plug-in, with its version; empty if that is not known. Nothing is imported."""
    found = next(iter(_announced(kind).select(name=name.partition(":")[0])), None)
    return f"{found.dist.name} {found.dist.version}" if found is not None and found.dist is not None else ""


def load_device_plugin(name: str) -> DevicePlugin:
    """Import the device plug-in of that name.

    Raises:
        PluginError: there is none, with the names that there are; or it is broken, with its error.
    """
    return cast("DevicePlugin", _load("device", name))


@dataclass(frozen=True, slots=True)
class _Maker:
    """The plug-in's function, as who is called."""

    name: str
    plugin: str
    device: DevicePlugin


def made_by(name: str, plugin: DevicePlugin, context: DeviceContext) -> list[Device]:
    """Have a plug-in make its devices. The caller closes them.

    Arguments:
        name: the plug-in's.
        plugin: what makes them.

    Raises:
        BrokenDeviceError: it raises something else than an error of migpool's, or what it returned are no devices.
        MigpoolError: it refuses.
    """
    maker = _Maker(f"the device plug-in {name!r}", "", plugin)
    try:
        with noted(maker, "function"):
            made = plugin(context)
            devices = list(made) if isinstance(made, Iterable) else None
    except MigpoolError:
        raise  # it refuses, in its own words
    except BaseException as error:  # noqa: BLE001 -- whatever a plug-in raises
        found = located(error, maker, "function")
        raise found from found.__cause__
    if devices is None:
        raise wrong(maker, "function", made, "a list of devices (migpool.device.Device)")
    if all(isinstance(device, Device) for device in devices):
        return devices
    other = next(thing for thing in devices if not isinstance(thing, Device))
    with suppress(Exception, SystemExit):
        for device in devices:
            if isinstance(device, Device):
                device.close()
    raise wrong(maker, "function", other, "a list of devices (migpool.device.Device), and nothing else in it")


def load_scheduler(name: str) -> type[Scheduler]:
    """Import the threading model of that name.

    Raises:
        PluginError: there is none, with the names that there are; or it is broken, with its error.
    """
    return cast("type[Scheduler]", _load("scheduler", name))


def _announced(kind: Kind) -> EntryPoints:
    """What is installed of a kind, read again only after something was: a list of claims names hundreds of models."""
    return _read(kind, tuple((place, _changed(place)) for place in sys.path))


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns  # noqa: PTH116 -- pathlib takes several times as long
    except OSError:
        return 0


@lru_cache(len(_GROUPS))
def _read(kind: Kind, places: tuple[tuple[str, int], ...]) -> EntryPoints:
    del places
    return entry_points(group=_GROUPS[kind])


def _load(kind: Kind, name: str) -> object:
    points = sorted(_announced(kind).select(name=name), key=lambda point: point.value)
    if not points:
        there = ", ".join(names(kind)) or "none"
        raise PluginError(f"there is no {_WORDS[kind]} {name!r}; there are: {there}")
    if len({point.value for point in points}) > 1:
        raise PluginError(
            f"{_WORDS[kind]} {name!r} is announced twice ({points[0].value} and {points[1].value}): "
            "uninstall one of the packages"
        )
    return _import(kind, points[0])


def _import(kind: Kind, point: EntryPoint) -> object:
    where = f"{_WORDS[kind]} {point.name!r} ({point.value})"
    try:
        loaded: object = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{where} cannot be imported: {raised(error)}{said(error)}{_line_of(error)}") from error
    if kind == "scheduler":
        if not (isinstance(loaded, type) and issubclass(loaded, Scheduler)):
            what = f"the class {loaded.__name__}" if isinstance(loaded, type) else f"a {type(loaded).__name__}"
            raise PluginError(f"{where} is no subclass of migpool.schedulers.base.Scheduler, but {what}")
        if inspect.isabstract(loaded):
            raise PluginError(f"{where} is abstract: it must have {', '.join(sorted(loaded.__abstractmethods__))}")
    elif not callable(loaded):
        raise PluginError(f"{where} cannot be called: it must be a function that takes a DeviceContext")
    return loaded


def _line_of(error: BaseException) -> str:
    """The line of the plug-in's that could not be executed, in brackets; nothing if it did not come to one."""
    frames = [frame for frame in extract_tb(error.__traceback__) if "importlib" not in frame.filename][1:]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _described(kind: Kind, point: EntryPoint) -> Plugin:
    summary = error = ""
    try:
        loaded = _import(kind, point)
    except PluginError as broken:
        error = str(broken)
    else:
        summary = next(iter((inspect.getdoc(loaded) or "").splitlines()), "")
    package = point.dist
    return Plugin(
        kind=kind,
        name=point.name,
        target=point.value,
        distribution=package.name if package else "",
        version=package.version if package else "",
        summary=summary,
        error=error,
    )


def read_options(texts: Sequence[str]) -> dict[str, OptionValue]:
    """The options, as a scenario would have them.

    Arguments:
        texts: ``KEY=VALUE`` each, the value as in a scenario file (TOML); what is no TOML is taken as text.

    Raises:
        UsageError: one is not of that form.
    """
    options: dict[str, OptionValue] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"option {text!r} is no KEY=VALUE: write for example -o size=65536")
        try:
            read = parse_toml(f"value = {value}")["value"]
        except ValueError:
            read = value.strip()
        options[key.strip()] = cast("OptionValue", read)
    return options
