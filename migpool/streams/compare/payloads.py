"""The few values in devices' payloads that a destination compares with its own, and refuses when they differ.

* Fields of the types ``... equal`` must be the destination's, those of ``int32 le`` at most that.
* Of a PCI device's configuration space what the guest cannot write must be the destination's (pci.py). It is a field of
  type ``pci config``, or in the opaque state of a virtio device (virtio.py).
* Levels of POWER's machines (``spapr/cap/...``) must be at most the destination's.
* ID registers of Arm's processors (processors.py): another model may refuse them.
* A console must have the same ports, and a GPU as many outputs: in the opaque field ``virtio-gpu``, where the list of
  resources (u32 0 if there are none) and an i32 come before that u32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from migpool.streams.compare.pci import SPACE, differences, subsystem
from migpool.streams.compare.processors import INDEXES, VALUES, id_registers
from migpool.streams.compare.virtio import read_state
from migpool.streams.inspect.summary import StreamSummary
from migpool.vmsd.cells import SCALARS
from migpool.vmsd.diff import MACHINE_LEVEL, Hazard, Verdict
from migpool.vmsd.layout import device_key

Json: TypeAlias = "Mapping[str, object]"
Spot: TypeAlias = "tuple[str, str]"
"""A device and a field in it."""

_ON_PCI: Final = re.compile(r"^[0-9a-f]{4}:")
_SPACE_KIND: Final = "pci config"
_FEATURES_KIND: Final = "features"
_LEVEL_KIND: Final = "level"
_NUMBERS: Final = frozenset(kind for kind in SCALARS if "int" in kind)
_ID_KIND: Final = "ID register"
_NUMBERED: Final = re.compile(r"\[\d+\]$")
"""There are two fields ``config``, of which a device has one."""
_NO_RESOURCES: Final = bytes(4)


def payload_hazards(
    source: StreamSummary, described: Json | None, destination: StreamSummary, other_described: Json | None
) -> Iterator[Hazard]:
    """Values that are in both streams, and that the destination refuses.

    Arguments:
        source, destination: both streams, with the payloads of their sections.
        described, other_described: their descriptions.
    """
    if described is None or other_described is None:
        return
    ours, theirs = dict(_values(source, described)), dict(_values(destination, other_described))
    for spot, (kind, own) in theirs.items():
        # It is the destination that compares, so its kind of field counts; the source's may be a plain one.
        if spot in ours:
            yield from _compared(".".join(spot), kind, ours[spot][1], own)


def _compared(path: str, kind: str, value: bytes, other: bytes) -> Iterator[Hazard]:
    if kind == _SPACE_KIND:
        found = [*differences(value, other)]
        if found:
            reason = f"another PCI device, or with other capabilities: {'; '.join(found)}"
            yield Hazard(path, "space", Verdict.BREAKS, reason)
        elif subsystem(value) != subsystem(other):
            reason = f"subsystem {subsystem(value):#010x} is written, the destination's is {subsystem(other):#010x}"
            yield Hazard(path, "subsystem", Verdict.CANNOT_TELL, f"{reason}; some devices refuse that")
        return
    loaded, own = (int.from_bytes(each, "big", signed=kind == "int32 le") for each in (value, other))
    if kind == "int32 le":
        if not 0 < loaded <= own:
            yield Hazard(path, "value", Verdict.BREAKS, f"the source has {loaded}, the destination takes 1 to {own}")
    elif kind == _LEVEL_KIND:
        if loaded > own:
            yield Hazard(path, "value", Verdict.BREAKS, f"level {loaded} is written, the destination has {own}")
    elif kind == _FEATURES_KIND:
        if own and loaded & ~own:
            reason = f"the source's driver has taken the features {loaded & ~own:#x}, which the destination's has not"
            yield Hazard(path, "features", Verdict.CANNOT_TELL, f"{reason}: they may not be offered there")
    elif kind == _ID_KIND and value != other:
        reason = f"{loaded:#x} is written, the destination has {own:#x}: another processor, which may refuse it"
        yield Hazard(path, "register", Verdict.CANNOT_TELL, reason)
    elif kind.endswith("equal") and value != other:
        reason = f"{loaded} is written, and the destination takes only its own, {own}"
        yield Hazard(path, "value", Verdict.BREAKS, reason)


def _values(stream: StreamSummary, described: Json) -> Iterator[tuple[Spot, tuple[str, bytes]]]:
    """Every value that is compared, with the kind of comparison, by device and field."""
    entries: dict[str, Json] = {}
    devices = described.get("devices")
    for entry in devices if isinstance(devices, list) else ():
        entries.setdefault(device_key(str(entry.get("name")), int(entry.get("instance_id", 0))), entry)
    for kept in stream.kept:
        device = device_key(kept.summary.idstr, kept.summary.instance_id)
        registers = {INDEXES: b"", VALUES: b""}
        for field, kind, value in _leaves(entries.get(device, {}), kept.payload, ""):
            if field in registers:
                registers[field] = value
            elif kind == "virtio" and _ON_PCI.match(device):
                for name, what in _virtio(value):
                    yield (device, f"{field}, {name}"), what
            elif kind == "virtio-gpu" and value.startswith(_NO_RESOURCES):
                yield (device, f"{field}, outputs"), ("equal", value[8:12])
            elif MACHINE_LEVEL in field:
                yield (device, field), (_LEVEL_KIND, value)
            elif kind == _SPACE_KIND and len(value) >= SPACE:
                yield (device, _NUMBERED.sub("", field)), (kind, value)
            elif kind in _NUMBERS:
                yield (device, field), (kind, value)
        for index, content in id_registers(*registers.values()).items():
            yield (device, f"ID register {index:#x}"), (_ID_KIND, content.to_bytes(8, "big"))


def _virtio(value: bytes) -> Iterator[tuple[str, tuple[str, bytes]]]:
    state = read_state(value)
    if state is not None:
        yield "config", (_SPACE_KIND, state.space)
        yield "features", (_FEATURES_KIND, state.features.to_bytes(8, "big"))
        if state.ports is not None:
            yield "ports", ("equal", state.ports)


def _leaves(entry: Json, payload: bytes, prefix: str) -> Iterator[tuple[str, str, bytes]]:
    """Fields that are no structures, with type and bytes: a description says exactly what is in its stream.

    An array of what is no structure is one of them.
    """
    at = 0
    fields, parts = entry.get("fields"), entry.get("subsections")
    for item in fields if isinstance(fields, list) else ():
        size, kind, count = int(item["size"]), str(item.get("type")), int(item.get("array_len", 1))
        inner = item.get("struct") if kind == "struct" else item if "fields" in item else None
        if size <= 0 or count <= 0:
            continue
        if not isinstance(inner, dict):
            size, count = size * count, 1
        for index in range(count):
            if at >= len(payload):
                return
            name = f"{prefix}{item['name']}" + (f"[{item.get('index', index)}]" if count > 1 or "index" in item else "")
            value = payload[at : at + size]
            if isinstance(inner, dict):
                yield from _leaves(inner, value, f"{name}.")
            elif len(value) == size:
                yield name, kind, value
            at += size
    for part in parts if isinstance(parts, list) else ():
        name = str(part["vmsd_name"])
        at += 6 + len(name)
        before = at
        yield from _leaves(part, payload[at:], f"{prefix}{name}.")
        at = before + _size(part)


def _size(entry: Json) -> int:
    """Bytes of a described subsection, without its head."""
    fields, parts = entry.get("fields"), entry.get("subsections")
    size = sum(
        int(item["size"]) * int(item.get("array_len", 1)) for item in (fields if isinstance(fields, list) else ())
    )
    for part in parts if isinstance(parts, list) else ():
        size += 6 + len(str(part["vmsd_name"])) + _size(part)
    return size
