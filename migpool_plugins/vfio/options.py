"""The ``options`` table of a vfio entry with emulated devices, as validated values.

::

    backend = "emulated"             the default; others: vfiouser/options.py, kernel/devices.py
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
    engines = 0                      1 to 64: the state comes as parts with tags, so many at once, each at the rates
                                     and latencies above; no precopy, no pollable, and chunk in multiples of 4 KiB
    bus = 1                          PCI bus of the first device; the others count up from it, and on in the next domain
    time_limit = 30                  seconds that the device process may answer later than its profile says
    devices = [{size = "128MiB"}]    overrides (profile included) for the first, second ... device
    fault = {device = 2, side = "source", at = "1MiB", kind = "error"}      device counts from 0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, get_args

from migpool.device import DeviceContext, DeviceError, Side
from migpool_plugins.options import Options
from migpool_plugins.vfio.profiles import DEFAULT_PROFILE, MAX_ENGINES, PROFILES, DeviceProfile, Fault, FaultKind

MAX_DEVICES: Final = 4096
BUSES: Final = 255
"""That a PCI domain has for devices; those behind them are in the next domain."""
_FIELDS: Final = {field.name: field.type for field in fields(DeviceProfile)}
_FAULT_KEYS: Final = ("device", "side", "at", "kind")


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
    keys = (*_FIELDS, "backend", "profile", "bus", "time_limit", "devices", "fault")
    options = Options("vfio", context.options, keys)
    names = device_names(options, context.count)
    time_limit = options.time_limit("time_limit", 30.0)
    base = _profile(options, PROFILES[DEFAULT_PROFILE], "")
    profiles = [_profile(table, base, f"devices[{n}].") for n, table in enumerate(_overrides(options, context.count))]
    profiles += [base] * (context.count - len(profiles))
    faulty, fault = _fault(options, context, profiles) if "fault" in context.options else (0, None)
    return [
        DeviceSettings(name, profile, fault if number == faulty else None, time_limit)
        for number, (name, profile) in enumerate(zip(names, profiles, strict=True))
    ]


def device_names(options: Options, count: int) -> list[str]:
    """The names of ``count`` devices in the stream, by the bus of the first, in as many PCI domains as they need."""
    if not 1 <= count <= MAX_DEVICES:
        raise options.wrong("count", count, f"a number from 1 to {MAX_DEVICES}")
    first = options.whole("bus", 1, 1, BUSES) - 1
    places = (divmod(at, BUSES) for at in range(first, first + count))
    return [f"{domain:04x}:{bus + 1:02x}:00.0/vfio" for domain, bus in places]


def each_device(
    options: Options, key: str, context: DeviceContext, like: str, numbered: Callable[[str, int], list[str]]
) -> list[str]:
    """Return what an option gives for each device: a text, a list of them, or a table with either for each side.

    Arguments:
        like: what the text is, with an example.
        numbered: makes the texts for a number of devices from a single one.
    """
    value = options.table.get(key)
    if isinstance(value, Mapping):
        if set(value) != {"source", "destination"}:
            raise options.wrong(key, dict(value), f'a table with "source" and "destination", each {like}')
        value, key = value[context.side], f"{key}.{context.side}"
    if isinstance(value, str):
        value = numbered(value, context.count)
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise options.wrong(key, value, f"{like}, or a list of them")
    if len(value) != context.count:
        raise DeviceError(f"vfio option {key} has {len(value)} for {context.count} devices: give a list, one for each")
    return [str(text) for text in value]


def _profile(options: Options, base: DeviceProfile, where: str) -> DeviceProfile:
    name = options.table.get("profile")
    if name is not None:
        if not isinstance(name, str) or name not in PROFILES:
            raise options.wrong("profile", name, f"one of {', '.join(sorted(PROFILES))}")
        base = PROFILES[name]
    changes: dict[str, Any] = {key: _field(options, key) for key in _FIELDS if key in options.table}
    if "transport" not in changes and (changes.get("pollable") or changes.get("precopy")):
        # Each of the two is possible in one way only, so nobody need say which.
        changes["transport"] = "descriptor" if changes.get("pollable") else "vfio-user"
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise DeviceError(f"vfio option {where}{error}") from None


def _field(options: Options, key: str) -> object:
    """Return the value of a profile's field, as its type and name say."""
    match _FIELDS[key]:
        case "bool":
            return options.flag(key, default=False)
        case "int" if key == "engines":
            return options.whole(key, 0, 0, MAX_ENGINES)
        case "int":
            return options.size(key)
        case "float" if key.endswith("_rate"):
            return options.rate(key)
        case "float":
            return options.seconds(key)
        case _:
            return options.table[key]  # One of some words: the profile says which.


def _overrides(options: Options, count: int) -> list[Options]:
    value = options.table.get("devices", ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise options.wrong("devices", value, 'a list of tables, such as [{size = "1MiB"}]')
    if len(value) > count:
        raise DeviceError(
            f"vfio option devices has {len(value)} tables for {count} devices: remove some, or raise count"
        )
    return [
        options.within(f"devices[{number}]", table, (*_FIELDS, "profile"), '{size = "1MiB"}')
        for number, table in enumerate(value)
    ]


def _fault(options: Options, context: DeviceContext, profiles: Sequence[DeviceProfile]) -> tuple[int, Fault | None]:
    """The number of the device and its fault; ``None`` if that belongs to the other side."""
    like = '{device = 0, side = "source", at = 0, kind = "error"}'
    fault = options.within("fault", options.table["fault"], _FAULT_KEYS, like)
    device = fault.whole("device", 0, 0, context.count - 1, f", since there are {context.count} devices")
    side: Side = fault.one_of("side", ("source", "destination"), "source")
    at = fault.size("at")
    state = profiles[device].size
    if at >= state:
        raise fault.wrong("at", at, f"less than the device's state of {state} bytes")
    kinds: tuple[FaultKind, ...] = get_args(FaultKind)
    kind = fault.one_of("kind", kinds)
    if kind == "short-read" and (side == "destination" or at == 0):
        raise fault.wrong("kind", kind, 'it only at the source, with "at" over 0: a read of 0 bytes is the end')
    if kind == "short-read" and profiles[device].engines:
        raise fault.wrong("kind", kind, "another one: a device with engines gives whole parts")
    return device, Fault(at, kind) if side == context.side else None
