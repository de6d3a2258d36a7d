"""The configs of devices that are not iterable, put together from a recording's packets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.inspect.summary import OVER_MULTIFD, Framing, KeptSection, SectionSummary
from migpool.streams.inspect.walk import Wanted
from migpool.streams.record.channels import DeviceKey, Packet, packets
from migpool.streams.record.index import Index
from migpool.wire.devicestate import CONFIG_VERSION_SIZE, HEADER_SIZE, version_of_described

_LIMIT: Final = 64 << 20
"""Bytes of one config; a longer one is none."""


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


def configs(
    directory: Path, index: Index, iterable: frozenset[DeviceKey], page_size: int, wanted: Wanted
) -> list[KeptSection]:
    """The configs over the multifd channels, in the order of their devices' first packets in the channels.

    Arguments:
        directory, index: the recording.
        iterable: the devices whose packets are state.
        page_size: bytes of a page.
        wanted: which devices to look for.

    Returns:
        Each as a section of the kind :data:`~migpool.streams.inspect.summary.OVER_MULTIFD`; one of which packets are
        missing, or that has no version, is left out.
    """
    found: dict[DeviceKey, _Parts] = {}
    for connection in index.multifd:
        if connection.source.recorded:
            _gather(directory / connection.source.file, page_size, iterable, wanted, found)
    return list(_whole(found))


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
    with path.open("rb", buffering=0) as file:
        try:
            for packet in packets(path, page_size):
                device = packet.device
                if device is None or device in iterable or not wanted(*device):
                    continue
                config = found.setdefault(device, _Parts(packet.offset))
                config.size += packet.payload
                if config.size <= _LIMIT:
                    payload = os.pread(file.fileno(), packet.payload, packet.offset + HEADER_SIZE)
                    config.parts[packet.index] = payload
                if packet.index == 0:
                    config.offset = packet.offset
                if packet.config:
                    config.last = packet.index
        except ProtocolError:
            return  # what comes behind it cannot be found


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
