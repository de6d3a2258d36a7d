"""Bytes that no source of this project makes itself: packets and descriptions as they were read, and whole sections."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.channelreader import ChannelEvent, DeviceStatePacket, RamPacket
from migpool.wire.devicestate import device_packet_header
from migpool.wire.multifd import InitialPacket, initial_packet
from migpool.wire.ramheader import ram_header
from migpool.wire.sections import Kind, SectionHead, section
from migpool.wire.unread import Buffer
from migpool.wire.vmdesc import Description, DeviceDescription, Field, Json, Layout


class RecordsOnly:
    """The schema of streams in which all sections but RAM consist of records, as this project's own devices' do."""

    __slots__ = ()

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        """Every device is."""
        del idstr, instance_id
        return True

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        """Refuse: a config record without a length needs a schema that knows the device."""
        del version, kind, data
        raise ProtocolError(0, f"payload of {idstr!r} ({instance_id})", "a schema that knows this device, found none")


RECORDS_ONLY: Final = RecordsOnly()


def section_start(
    section_id: int, idstr: str, payload: Buffer | Sequence[Buffer], *, instance_id: int = 0, version: int = 1
) -> list[Buffer]:
    """The first section of a device that will have more."""
    return section(SectionHead(Kind.START, section_id, idstr, instance_id, version), payload)


def section_full(
    section_id: int, idstr: str, payload: Buffer | Sequence[Buffer], *, instance_id: int = 0, version: int = 1
) -> list[Buffer]:
    """The only section of a device."""
    return section(SectionHead(Kind.FULL, section_id, idstr, instance_id, version), payload)


def emit_packet(event: ChannelEvent) -> list[Buffer]:
    """The bytes that an event was read from, as buffers for ``sendmsg``; the payload is passed on as it is."""
    match event:
        case InitialPacket(uuid, channel):
            return [initial_packet(channel, uuid)]
        case RamPacket(header, payload, page_size):
            return [ram_header(header, page_size), payload]
        case DeviceStatePacket(header, payload):
            return [device_packet_header(header), payload]


def emit_description(description: Description) -> bytes:
    """The JSON of a description, with the keys in QEMU's order, ready for ``stream.vm_description``."""
    value: dict[str, Json] = {}
    if description.configuration is not None:
        value["configuration"] = dict(_layout_json(description.configuration))
    value["page_size"] = description.page_size
    value["devices"] = [_device_json(device) for device in description.devices]
    return json.dumps(value).encode("ascii")


def _device_json(device: DeviceDescription) -> Json:
    value: dict[str, Json] = {"name": device.name, "instance_id": device.instance_id}
    if device.layout is not None:
        return {**value, **_layout_json(device.layout)}
    return {**value, "size": device.size, "fields": [{"name": "data", "size": device.size, "type": "buffer"}]}


def _layout_json(layout: Layout) -> Mapping[str, Json]:
    value: dict[str, Json] = {
        "vmsd_name": layout.vmsd_name,
        "version": layout.version,
        "fields": [_field_json(field) for field in layout.fields],
    }
    if layout.subsections:
        value["subsections"] = [dict(_layout_json(subsection)) for subsection in layout.subsections]
    return value


def _field_json(field: Field) -> Json:
    value: dict[str, Json] = {"name": field.name}
    if field.array_len is not None:
        value["array_len"] = field.array_len
    if field.index is not None:
        value["index"] = field.index
    value["type"] = field.type
    if field.struct is not None:
        value.update(_layout_json(field.struct) if field.inline else {"struct": dict(_layout_json(field.struct))})
    value["size"] = field.size
    return value
