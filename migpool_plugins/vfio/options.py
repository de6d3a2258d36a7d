"""The options of a vfio entry with emulated devices, as validated values; and what other backends have in common with
it (``vfiouser/options.py``, ``kernel/devices.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from migpool.device import DeviceContext, DeviceError, GivenOptions, Option, Options, Side
from migpool.units import count_of
from migpool_plugins.vfio.profiles import DEFAULT_PROFILE, MAX_ENGINES, PROFILES, DeviceProfile, Fault, FaultKind

MAX_DEVICES: Final = 4096
BUSES: Final = 255
"""That a PCI domain has for devices; those behind them are in the next domain."""

BACKEND: Final = Option.one_of(
    "backend",
    "emulated",
    "emulated devices, those of vfio-user servers that run already, or devices of this host",
    ("emulated", "vfio-user", "kernel"),
)
BUS: Final = Option.whole(
    "bus",
    1,
    "PCI bus of the first device in the stream; the others count up from it, and on in the next domain",
    least=1,
    most=BUSES,
)
PRECOPY: Final = Option.flag("precopy", True, "whether to save while the machine runs, if the device can")
PEER_TO_PEER: Final = Option.flag(
    "peer_to_peer",
    True,
    "false: it begins nothing towards other devices, so it need not be quiet before they stop; you answer for that",
)


def per_device(name: str, meaning: str, like: str) -> Option[object]:
    """An option that gives each device a text; see :func:`each_device`. ``like``: what that is, with an example."""
    more = "; for some devices a list; when both ends are on one host a table with source and destination"
    return Option(name, "text, list or table", None, meaning + more, like)


IDSTR: Final = per_device(
    "idstr",
    "its name in the stream, instead of one by bus: the PCI path as QEMU writes it",
    'a name, such as "0000:00:03.0/vfio", or "0000:00:03.0:00.0/vfio" behind a root port',
)


_FIELDS: Final[tuple[Option[Any], ...]] = (
    Option.size("size", 0, "the device's state"),
    Option.size("chunk", 0, "in how large pieces it is produced; no read returns more"),
    Option.rate("read_rate", 0.0, "how fast it is read; 0: as fast as it goes"),
    Option.rate("write_rate", 0.0, "how fast it is written; 0: as fast as it goes"),
    Option.seconds("read_latency", 0.0, "what each read of a chunk takes besides"),
    Option.seconds("write_latency", 0.0, "what each write takes besides"),
    Option.seconds("stop_time", 0.0, "how long it takes to stop"),
    Option.seconds("save_config_time", 0.0, "how long it takes to save its config"),
    Option.size("config_size", 0, "its config"),
    Option.seconds("load_config_time", 0.0, "how long it takes to load its config, under the big lock"),
    Option("shared_lock", "one of", "", "one lock for all devices of the entry", '"", "read", "write" or "both"'),
    Option.flag("pollable", False, 'a descriptor to wait on before a read; makes transport "descriptor"'),
    Option("transport", "one of", "", "how state moves", '"vfio-user" or "descriptor"'),
    Option.flag("p2p", False, "whether it can be quiet towards its peers before it stops"),
    Option.flag("precopy", False, "whether it gives state while the machine runs"),
    Option.size("initial_size", 0, "with precopy: so much of it at first"),
    Option.rate("dirty_rate", 0.0, "with precopy: and then so much more that it makes dirty"),
    Option.whole(
        "engines",
        0,
        "if not 0, the state comes as parts with tags, so many at once, each at these rates and latencies; no precopy, "
        "no pollable, and chunk in multiples of 4 KiB",
        least=0,
        most=MAX_ENGINES,
    ),
)
"""Those of a :class:`DeviceProfile`, which has the defaults and refuses what is out of range."""
_PROFILE: Final = Option(
    "profile",
    "one of",
    DEFAULT_PROFILE,
    "the device's size and pace; the options of a profile override its values",
    f"one of {', '.join(sorted(PROFILES))}",
)
_LIMIT: Final = Option.time_limit(
    "time_limit", 30.0, "how much later than its profile says the device process may answer"
)
_DEVICES: Final = Option(
    "devices",
    "list of tables",
    None,
    "overrides, profile included, for the first, second ... device",
    'a list of tables, such as [{size = "1MiB"}]',
)
_LIKE_FAULT: Final = '{device = 0, side = "source", at = 0, kind = "error"}'
_FAULT: Final = Option("fault", "table", None, "what goes wrong: a device, from 0 on, a side, where", _LIKE_FAULT)
_OVERRIDES: Final = Options("vfio", *_FIELDS, _PROFILE)
_SIDE: Final = Option[Side].one_of("side", "source", "of which end", ("source", "destination"))
_AT: Final = Option.size("at", 0, "the first byte of the state that is not read or written any more")
_KIND: Final = Option[FaultKind | None].one_of("kind", None, "what happens", get_args(FaultKind))
_FAULTS: Final = Options("vfio", Option("device", "", 0, ""), _SIDE, _AT, _KIND)

_USUAL: Final = PROFILES[DEFAULT_PROFILE]
OPTIONS: Final = Options(
    "vfio",
    *(BACKEND, _PROFILE),
    *(replace(option, default=getattr(_USUAL, option.name)) for option in _FIELDS),
    *(BUS, IDSTR, _LIMIT, _DEVICES, _FAULT),
)


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
    options = OPTIONS.read(context.options)
    names = device_names(options, context)
    time_limit = options[_LIMIT]
    base = _profile(options, _USUAL, "")
    profiles = [_profile(table, base, f"devices[{n}].") for n, table in enumerate(_overrides(options, context.count))]
    profiles += [base] * (context.count - len(profiles))
    faulty, fault = _fault(options, context, profiles) if "fault" in context.options else (0, None)
    return [
        DeviceSettings(name, profile, fault if number == faulty else None, time_limit)
        for number, (name, profile) in enumerate(zip(names, profiles, strict=True))
    ]


def device_names(options: GivenOptions, context: DeviceContext) -> list[str]:
    """The names of the devices in the stream: those that are given, or made.

    They are made by the bus of the first, in as many PCI domains as they need.
    """
    count = context.count
    if not 1 <= count <= MAX_DEVICES:
        raise options.wrong("count", count, f"a number from 1 to {MAX_DEVICES}")
    if IDSTR in options:
        return each_device(options, IDSTR, context, lambda name, _count: [name])
    first = options[BUS] - 1
    places = (divmod(at, BUSES) for at in range(first, first + count))
    return [f"{domain:04x}:{bus + 1:02x}:00.0/vfio" for domain, bus in places]


def each_device(
    options: GivenOptions, option: Option[object], context: DeviceContext, numbered: Callable[[str, int], list[str]]
) -> list[str]:
    """Return what an option gives for each device: a text, a list of them, or a table with either for each side.

    Arguments:
        numbered: makes the texts for a number of devices from a single one.
    """
    value, key, like = options[option], option.name, option.values
    if isinstance(value, Mapping):
        if set(value) != {"source", "destination"}:
            raise options.wrong(key, dict(value), f'a table with "source" and "destination", each {like}')
        value, key = value[context.side], f"{key}.{context.side}"
    if isinstance(value, str):
        value = numbered(value, context.count)
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise options.wrong(key, value, f"{like}, or a list of them")
    if len(value) != context.count:
        raise DeviceError(
            f"vfio option {key} has {len(value)} for {count_of(context.count, 'device')}: give a list, one for each"
        )
    return [str(text) for text in value]


def _profile(options: GivenOptions, base: DeviceProfile, where: str) -> DeviceProfile:
    if _PROFILE in options:
        name = options[_PROFILE]
        if not isinstance(name, str) or name not in PROFILES:
            raise options.wrong("profile", name, _PROFILE.values)
        base = PROFILES[name]
    changes: dict[str, Any] = {field.name: options[field] for field in _FIELDS if field in options}
    if "transport" not in changes and (changes.get("pollable") or changes.get("precopy")):
        # Each of the two is possible in one way only, so nobody need say which.
        changes["transport"] = "descriptor" if changes.get("pollable") else "vfio-user"
    try:
        return replace(base, **changes)
    except ValueError as error:
        raise DeviceError(f"vfio option {where}{error}") from None


def _overrides(options: GivenOptions, count: int) -> list[GivenOptions]:
    value = options.table.get("devices", ())
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise options.wrong("devices", value, _DEVICES.values)
    if len(value) > count:
        raise DeviceError(
            f"vfio option devices has {count_of(len(value), 'table')} for {count_of(count, 'device')}: remove some, or "
            "raise count"
        )
    return [
        options.within(f"devices[{number}]", table, _OVERRIDES, '{size = "1MiB"}') for number, table in enumerate(value)
    ]


def _fault(
    options: GivenOptions, context: DeviceContext, profiles: Sequence[DeviceProfile]
) -> tuple[int, Fault | None]:
    """The number of the device and its fault; ``None`` if that belongs to the other side."""
    fault = options.within("fault", options[_FAULT], _FAULTS, _LIKE_FAULT)
    most, why = context.count - 1, f", since the entry makes {count_of(context.count, 'device')}"
    device = fault[Option.whole("device", 0, "", least=0, most=most, why=why)]
    side, at = fault[_SIDE], fault[_AT]
    state = profiles[device].size
    if at >= state:
        raise fault.wrong("at", at, f"less than the device's state of {state} bytes")
    kind = fault[_KIND]
    if kind is None:
        raise fault.wrong("kind", kind, _KIND.values)
    if kind == "short-read" and (side == "destination" or at == 0):
        raise fault.wrong("kind", kind, 'it only at the source, with "at" over 0: a read of 0 bytes is the end')
    if kind == "short-read" and profiles[device].engines:
        raise fault.wrong("kind", kind, "another one: a device with engines gives whole parts")
    return device, Fault(at, kind) if side == context.side else None
