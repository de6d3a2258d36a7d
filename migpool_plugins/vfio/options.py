"""The ``options`` table of a vfio entry with emulated devices, as validated values.

::

    backend = "emulated"             the default; others: opening.py
    profile = "network-function"     a name of profiles.PROFILES; every key below overrides one of its values
    size, chunk, config_size         bytes, or "64MiB"
    read_rate, write_rate            bytes per second, or "400MiB"; 0 is as fast as it goes
    read_latency, write_latency      seconds for each chunk, or "100us"
    stop_time, save_config_time, load_config_time        seconds, or "5ms"
    shared_lock = ""                 "read", "write" or "both": one lock for all devices of the entry
    pollable = false                 a descriptor to wait on before a read; makes transport "descriptor"
    transport = "vfio-user"          or "descriptor": how state moves
    p2p = true                       whether the device can be quiet towards its peers before it stops
    precopy = false                  whether it gives state while the machine runs:
    initial_size, dirty_rate         first so many bytes, then so many a second that it makes dirty
    bus = 1                          PCI bus of the first device; the others count up from it
    time_limit = 30                  seconds that the device process may answer later than its profile says
    devices = [{size = "128MiB"}]    overrides (profile included) for the first, second ... device
    fault = {device = 2, side = "source", at = "1MiB", kind = "error"}      device counts from 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar

from migpool.device import DeviceContext, DeviceError, OptionValue
from migpool.scenario.units import parse_duration, parse_rate, parse_size
from migpool_plugins.vfio.profiles import DEFAULT_PROFILE, PROFILES, DeviceProfile, Fault

_BYTES: Final = 'a whole number of bytes, or text such as "64MiB" (B, KiB, MiB, GiB, TiB)'
_SECONDS: Final = 'seconds that are not negative, or text such as "5ms" (us, ms, s)'
MAX_DEVICES: Final = 255

T = TypeVar("T")

Parsed: TypeAlias = "int | float | str | bool"


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Everything one device of an entry is made from.

    Arguments:
        idstr: its name in the stream, a PCI path as QEMU writes it.
        profile: its size and pace.
        fault: what goes wrong with it on this side; ``None``: nothing.
        time_limit: seconds that the device process may answer later than the profile says.
    """

    idstr: str
    profile: DeviceProfile
    fault: Fault | None
    time_limit: float


def parse_options(context: DeviceContext) -> list[DeviceSettings]:
    """Return the settings of ``context.count`` devices.

    Raises:
        DeviceError: one line that names the key, what is wrong with it and what would be right.
    """
    options = context.options
    known("option", options, {*_FIELDS, "backend", "profile", "bus", "time_limit", "devices", "fault"})
    bus = check_bus(context)
    time_limit = duration("time_limit", options.get("time_limit", 30.0))
    if not 0 < time_limit <= 3600:
        raise wrong("time_limit", time_limit, "seconds over 0, at most 3600")

    base = _profile(options, PROFILES[DEFAULT_PROFILE], "")
    overrides = _overrides(options.get("devices", ()), context.count)
    profiles = [_profile(table, base, f"devices[{n}].") for n, table in enumerate(overrides)]
    profiles += [base] * (context.count - len(profiles))
    fault = _fault(options["fault"], context, profiles) if "fault" in options else None
    return [
        DeviceSettings(
            idstr=f"0000:{bus + number:02x}:00.0/vfio",
            profile=profile,
            fault=fault[1] if fault is not None and fault[0] == number else None,
            time_limit=time_limit,
        )
        for number, profile in enumerate(profiles)
    ]


def check_bus(context: DeviceContext) -> int:
    """Return the bus of the first device, if there is a bus for every one."""
    if not 1 <= context.count <= MAX_DEVICES:
        raise wrong("count", context.count, f"a number from 1 to {MAX_DEVICES}")
    bus = whole("bus", context.options.get("bus", 1))
    last = MAX_DEVICES - context.count + 1
    if not 1 <= bus <= last:
        raise wrong("bus", bus, f"1 to {last}, so that the last device's bus is at most {MAX_DEVICES}")
    return bus


def _profile(table: Mapping[str, OptionValue], base: DeviceProfile, where: str) -> DeviceProfile:
    name = table.get("profile")
    if name is not None:
        if not isinstance(name, str) or name not in PROFILES:
            raise wrong(f"{where}profile", name, f"one of {', '.join(sorted(PROFILES))}")
        base = PROFILES[name]
    changes: dict[str, Any] = {key: parse(where + key, table[key]) for key, parse in _FIELDS.items() if key in table}
    if "transport" not in changes and (changes.get("pollable") or changes.get("precopy")):
        # Each of the two is possible in one way only, so nobody need say which.
        changes["transport"] = "descriptor" if changes.get("pollable") else "vfio-user"
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise DeviceError(f"vfio option {where}{error}") from None


def _overrides(value: OptionValue, count: int) -> list[Mapping[str, OptionValue]]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise wrong("devices", value, 'a list of tables, such as [{size = "1MiB"}]')
    tables: list[Mapping[str, OptionValue]] = []
    for number, table in enumerate(value):
        if not isinstance(table, Mapping):
            raise wrong(f"devices[{number}]", table, 'a table, such as {size = "1MiB"}')
        known(f"option devices[{number}]:", table, {*_FIELDS, "profile"})
        tables.append(table)
    if len(tables) > count:
        raise DeviceError(
            f"vfio option devices has {len(tables)} tables for {count} devices: remove some, or raise count"
        )
    return tables


def _fault(table: OptionValue, context: DeviceContext, profiles: Sequence[DeviceProfile]) -> tuple[int, Fault] | None:
    """The fault and the number of its device; ``None`` if it belongs to the other side."""
    if not isinstance(table, Mapping):
        raise wrong("fault", table, 'a table, such as {device = 0, side = "source", at = 0, kind = "error"}')
    known("option fault:", table, {"device", "side", "at", "kind"})
    device = whole("fault.device", table.get("device", 0))
    if not 0 <= device < context.count:
        raise wrong("fault.device", device, f"0 to {context.count - 1}, since there are {context.count} devices")
    side = table.get("side", "source")
    if side not in ("source", "destination"):
        raise wrong("fault.side", side, '"source" or "destination"')
    at = size("fault.at", table.get("at", 0))
    state = profiles[device].size
    if at >= state:
        raise wrong("fault.at", at, f"less than the device's state of {state} bytes")
    kind = table.get("kind")
    if kind != "error" and kind != "stall" and kind != "crash" and kind != "short-read":
        raise wrong("fault.kind", kind, '"error", "stall", "crash" or "short-read"')
    if kind == "short-read" and (side == "destination" or at == 0):
        raise wrong("fault.kind", kind, 'it only at the source, with "at" over 0: a read of 0 bytes is the end')
    return (device, Fault(at, kind)) if side == context.side else None


def known(what: str, table: Mapping[str, OptionValue], keys: set[str]) -> None:
    """Refuse a table with a key that is not among ``keys``."""
    unknown = sorted(set(table) - keys)
    if unknown:
        raise DeviceError(f"vfio {what} {unknown[0]!r} is unknown: use {', '.join(sorted(keys))}")


def wrong(key: str, value: object, remedy: str) -> DeviceError:
    """The error for an option whose value is wrong."""
    return DeviceError(f"vfio option {key} is {value!r}: use {remedy}")


def whole(key: str, value: OptionValue) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(key, value, "a whole number")
    return value


def size(key: str, value: OptionValue) -> int:
    """Return a number of bytes, from a number or from text with a unit."""
    return _read(parse_size, key, value, _BYTES)


def _rate(key: str, value: OptionValue) -> float:
    return value if isinstance(value, float) and value >= 0 else float(_read(parse_rate, key, value, _BYTES))


def duration(key: str, value: OptionValue) -> float:
    """Return seconds, from a number or from text with a unit."""
    return _read(parse_duration, key, value, _SECONDS)


def _read(parse: Callable[[object], T], key: str, value: OptionValue, remedy: str) -> T:
    try:
        return parse(value)
    except ValueError:
        raise wrong(key, value, remedy) from None


def flag(key: str, value: OptionValue) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise wrong(key, value, "true or false")
    return value


def _text(key: str, value: OptionValue) -> str:
    if not isinstance(value, str):
        raise wrong(key, value, "text in quotes")
    return value


_FIELDS: Final[Mapping[str, Callable[[str, OptionValue], Parsed]]] = {
    "size": size,
    "chunk": size,
    "read_rate": _rate,
    "write_rate": _rate,
    "read_latency": duration,
    "write_latency": duration,
    "stop_time": duration,
    "save_config_time": duration,
    "config_size": size,
    "load_config_time": duration,
    "shared_lock": _text,
    "pollable": flag,
    "transport": _text,
    "p2p": flag,
    "precopy": flag,
    "initial_size": size,
    "dirty_rate": _rate,
}
