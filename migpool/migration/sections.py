"""The sections of a machine's devices on the main channel: written at the source, measured at the destination."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from struct import Struct

from migpool.core import returned
from migpool.core.device_calls import of
from migpool.core.machine import Machine, Slot
from migpool.core.plugin_errors import wrong
from migpool.errors import ProtocolError
from migpool.wire.records import config_record, end_payload, setup_payload
from migpool.wire.sections import Kind, Section, section, section_end
from migpool.wire.unread import Buffer
from migpool.wire.vmdesc import MULTIFD_DEVICES

_LENGTH = Struct(">I")


def setup_section(slot: Slot, data: bytes) -> Sequence[Buffer]:
    """The START section that carries what ``save_setup`` returned; empty where there is nothing to carry.

    An iterable device has one in any case: it is how the destination hears of the device.
    """
    device = slot.device
    if not (device.iterable or data):
        return ()
    return section(slot.head(Kind.START), setup_payload(data) if device.iterable else counted(data))


def config_section(slot: Slot, config: bytes) -> Sequence[Buffer]:
    """The FULL section of a device that is not iterable."""
    return section(slot.head(Kind.FULL), _content(slot, config))


def state_section(slot: Slot, config: bytes) -> Sequence[Buffer]:
    """The section that ends an iterable device's state on the main channel: its config, and the end mark.

    One whose config is its own format's is in a FULL section behind its END, as QEMU has it.
    """
    payload = [*config_record(b"".join(_content(slot, config))), end_payload()]
    if _exact(slot):
        return [*section_end(slot.section_id, end_payload()), *section(slot.head(Kind.FULL), payload)]
    return section_end(slot.section_id, payload)


def _content(slot: Slot, config: bytes) -> list[Buffer]:
    return [config] if _exact(slot) else counted(config)


def counted(data: Buffer) -> list[Buffer]:
    """Data with its length before it, in 32 bits: what migpool puts into a section whose format is nobody else's."""
    return [_LENGTH.pack(len(data)), data]


def uncounted(data: Buffer) -> bytes:
    """The data behind the length that :func:`counted` puts before it."""
    return bytes(memoryview(data)[_LENGTH.size :])


class MachineSchema:
    """Knows how long the sections of a machine's devices are; the destination's side of the above."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def iterable(self, idstr: str, instance_id: int, /) -> bool:
        """Whether the device's sections consist of records."""
        return self.slot(idstr, instance_id).device.iterable

    def measure(self, idstr: str, instance_id: int, version: int, kind: Kind, data: memoryview, /) -> int | None:
        """How long the payload is that begins ``data``; ``None`` if more is needed to tell.

        Raises:
            DeviceError: the device cannot load this version, or its bytes are no config.
            ProtocolError: there is no such device.
        """
        slot = self.slot(idstr, instance_id)
        device = slot.device
        of(slot, "check_version", lambda: device.check_version(version))
        if kind is Kind.FULL and _exact(slot):
            return of(
                slot,
                "measure_config",
                lambda: returned.measured(slot, "measure_config", device.measure_config(data)),
            )
        if len(data) < _LENGTH.size:
            return None
        length: int = _LENGTH.unpack_from(data)[0]
        return _LENGTH.size + length

    def within(self, slot: Slot, section: Section) -> bytes:
        """The config inside a FULL section, or the set-up data inside a START section."""
        exact = section.head.kind is Kind.FULL and _exact(slot)
        return bytes(section.payload) if exact else uncounted(section.payload)

    def recorded(self, slot: Slot, config: Buffer) -> bytes:
        """The config inside an iterable device's record."""
        return bytes(config) if _exact(slot) else uncounted(config)

    def slot(self, idstr: str, instance_id: int, offset: int = 0) -> Slot:
        """The device that a section is for.

        Arguments:
            idstr: of the section.
            instance_id: of the section.
            offset: of the section in the stream, for the error.

        Raises:
            ProtocolError: there is no such device.
        """
        slot = self._machine.find(idstr, instance_id)
        if slot is None:
            raise ProtocolError(
                offset, "section", f"a device of this machine, found {idstr!r} ({instance_id}): start both ends alike"
            )
        return slot


def describe(machine: str, slots: Sequence[Slot], over_multifd: Sequence[Slot] = (), page_size: int = 4096) -> bytes:
    """The JSON description at the stream's end. Made before the machine stops: it is not part of the downtime.

    Arguments:
        machine: its name.
        slots: the devices that have a section on the main channel.
        over_multifd: those that are not iterable and cross over the multifd channels. They stand in a list of their
            own: who looks for sections goes by the other one.
        page_size: of the machine's memory, in bytes.

    A device that does not describe itself is left out: the length of its config is not known yet, and a wrong one would
    mislead a reader, who finds the config by its section's footer otherwise.
    """
    fields = [
        {"name": "len", "type": "uint32", "size": 4},
        {"name": "name", "type": "buffer", "size": len(machine.encode())},
    ]
    configuration = {"vmsd_name": "configuration", "version": 1, "fields": fields}
    described = {"configuration": configuration, "page_size": page_size, "devices": _descriptions(slots)}
    if over_multifd:
        described[MULTIFD_DEVICES] = _descriptions(over_multifd)
    return json.dumps(described).encode()


def _descriptions(slots: Sequence[Slot]) -> list[dict[str, object]]:
    return [
        {"name": slot.device.idstr, "instance_id": slot.device.instance_id, **own}
        for slot in slots
        if (own := of(slot, "describe_config", partial(_description, slot))) is not None
    ]


def _description(slot: Slot) -> Mapping[str, object] | None:
    own = returned.description(slot, "describe_config", slot.device.describe_config())
    try:
        json.dumps(own)
    except (TypeError, ValueError, RecursionError):
        raise wrong(slot, "describe_config", own, "what JSON can say") from None
    return own


def _exact(slot: Slot) -> bool:
    return of(slot, "exact_config", lambda: returned.truth(slot, "exact_config", slot.device.exact_config()))
