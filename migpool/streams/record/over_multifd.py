"""What crossed over a recording's multifd channels: packets with state, and configs put together from packets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.summary import OVER_MULTIFD, Framing, KeptSection, Piece, SectionSummary
from migpool.streams.inspect.walk import Wanted
from migpool.streams.record.channels import DeviceKey, MainSummary, Packet, packets, summarise
from migpool.streams.record.index import Index, load
from migpool.wire.devicestate import CONFIG_VERSION_SIZE, DEVICE_STATE_VERSION, HEADER_SIZE, version_of_described
from migpool.wire.records import config_within
from migpool.wire.returnpath import DESCRIBED_CAPABILITY

_LIMIT: Final = 64 << 20
"""Bytes of one config; a longer one is none."""
_PIECES_KEPT: Final = 4096
"""How many packets of one device are kept."""


@dataclass(slots=True)
class _Parts:
    """What has been found of one config."""

    offset: int
    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    last: int | None = None

    def whole(self) -> bytes | None:
        """All of it; ``None`` if parts are missing."""
        if self.last is None or sorted(self.parts) != list(range(self.last + 1)):
            return None
        return b"".join(self.parts[index] for index in range(self.last + 1))


def kept(directory: Path, wanted: Wanted) -> list[KeptSection]:
    """The devices over the multifd channels, in the order of their first packets in the channels.

    Arguments:
        directory: the recording.
        wanted: which devices to look for.

    Returns:
        Each as a section of the kind :data:`~migpool.streams.inspect.summary.OVER_MULTIFD`: a device that is not
        iterable with its config, unless packets of it are missing or it has no version; an iterable one with its
        packets, and with its config without the marks around it.
    """
    index = load(directory)
    main = index.main
    summary = summarise(directory / main.source.file) if main and main.source.recorded else MainSummary()
    if DESCRIBED_CAPABILITY in summary.capabilities:
        described = configs(directory, index, frozenset(summary.iterable), summary.page_size, wanted)
    else:
        described = []
    skipped = frozenset((one.summary.idstr, one.summary.instance_id) for one in described)
    return [*_states(directory, index, skipped, summary.page_size, wanted), *described]


def configs(
    directory: Path, index: Index, iterable: frozenset[DeviceKey], page_size: int, wanted: Wanted
) -> list[KeptSection]:
    """The configs of devices that are not iterable: what :func:`kept` returns of them.

    Arguments:
        directory, index: the recording.
        iterable: the devices whose packets are state.
        page_size: bytes of a page.
        wanted: which devices to look for.
    """
    found: dict[DeviceKey, _Parts] = {}
    for connection in index.multifd:
        if connection.source.recorded:
            _gather(directory / connection.source.file, page_size, iterable, wanted, found)
    return list(_whole(found))


def _states(
    directory: Path, index: Index, skipped: frozenset[DeviceKey], page_size: int, wanted: Wanted
) -> Iterator[KeptSection]:
    """Packets of state, of every device that is not to be skipped."""
    pieces: dict[DeviceKey, list[Piece]] = {}
    sizes: dict[DeviceKey, int] = {}
    states: dict[DeviceKey, bytes] = {}
    for connection in index.multifd:
        path = directory / connection.source.file
        for packet in _readable(path, page_size) if connection.source.recorded else ():
            device = packet.device
            if device is None or device in skipped or not wanted(*device):
                continue
            sizes[device] = sizes.get(device, 0) + packet.payload
            of_device = pieces.setdefault(device, [])
            if len(of_device) < _PIECES_KEPT:
                what = f"version {DEVICE_STATE_VERSION}, index {packet.index}, flags {int(packet.config)}"
                of_device.append(Piece(what, packet.payload, packet.offset, connection.channel))
            if packet.config and packet.payload <= _LIMIT:
                states[device] = _content(path, packet)
    for (idstr, instance_id), of_device in pieces.items():
        config = states.get((idstr, instance_id), b"")
        with suppress(ProtocolError):
            config = bytes(config_within(config))
        size, first = sizes[idstr, instance_id], of_device[0].offset
        summary = SectionSummary(OVER_MULTIFD, 0, idstr, instance_id, DEVICE_STATE_VERSION, first, size, len(of_device))
        yield KeptSection(summary, config, tuple(of_device))


def _readable(path: Path, page_size: int) -> Iterator[Packet]:
    """Every packet, up to the first that is damaged."""
    with suppress(ProtocolError):
        yield from packets(path, page_size)


def _content(path: Path, packet: Packet) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), packet.payload, packet.offset + HEADER_SIZE)


def config_version(path: Path, packet: Packet) -> int | None:
    """The version of the config whose first packet this is; ``None`` if the packet has none.

    Arguments:
        path: what the source sent on the packet's channel.
    """
    with path.open("rb", buffering=0) as file:
        head = os.pread(file.fileno(), min(CONFIG_VERSION_SIZE, packet.payload), packet.offset + HEADER_SIZE)
    return int.from_bytes(head, "big") if len(head) == CONFIG_VERSION_SIZE else None


def _gather(
    path: Path, page_size: int, iterable: frozenset[DeviceKey], wanted: Wanted, found: dict[DeviceKey, _Parts]
) -> None:
    for packet in _readable(path, page_size):
        device = packet.device
        if device is None or device in iterable or not wanted(*device):
            continue
        config = found.setdefault(device, _Parts(packet.offset))
        config.size += packet.payload
        if config.size <= _LIMIT:
            config.parts[packet.index] = _content(path, packet)
        if packet.index == 0:
            config.offset = packet.offset
        if packet.config:
            config.last = packet.index


def _whole(found: dict[DeviceKey, _Parts]) -> Iterator[KeptSection]:
    for (idstr, instance_id), config in found.items():
        content = config.whole()
        if content is None:
            continue
        try:
            version, payload = version_of_described(content)
        except ProtocolError:
            continue
        summary = SectionSummary(
            OVER_MULTIFD,
            0,
            idstr,
            instance_id,
            version,
            config.offset,
            len(payload),
            len(config.parts),
            Framing.SELF,
        )
        yield KeptSection(summary, payload)
