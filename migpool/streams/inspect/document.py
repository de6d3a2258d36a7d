"""The summary of a stream as JSON, schema 1: what ``migpool inspect --json`` prints.

::

    schema          1
    kind            "stream"
    envelope        [sentences]: what the stream was wrapped in, from the outside in
    size            bytes that were there
    walked          bytes that were understood; complete: whether these are all
    header          {version}, or null
    configuration   {machine, page_bits, capabilities, uuid}, or null; each of the last three may be null
    page_size       bytes of a page of RAM
    footers         whether sections have footers; null if there was no section
    commands        [{name, data (hex), size, offset, count}]; equal ones in a row are one entry
    ram             {pages, normal, zero, xbzrle, zlib, multifd_flushes,
                    blocks: [{name, used_length, gpa, pages, normal, zero, xbzrle, zlib}]}
    sections        [{kind, section_id, idstr, instance_id, version, offset, size, count, framing}]; all PART sections
                    of a device are one entry; framing: self-delimiting, described, opaque or guessed
    eof             where the EOF item stands, or null
    description     {offset, size, devices, fault, over_multifd}, or null; devices is null if there is a fault;
                    over_multifd: how many more devices it describes, which crossed over the multifd channels
    problem         {offset, item, expected}, or null: why the walk ended early
    notes           [sentences]
    devices         only with --device, also of a recording: [{kind, idstr, instance_id, version, offset, size, fields,
                    exact, fault, bytes}]; fields: values by name as text, nested as in the description, or null with
                    the fault and the bytes in hex; exact: the fields, encoded again, are the payload byte for byte. The
                    offset of a device that crossed over a multifd channel is one of that channel. Of an iterable device
                    each section is one, and its fields are the pieces of its state, and its config if it is known
All offsets are bytes of the stream, which begins behind what it is wrapped in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias

from migpool.streams.inspect.summary import BlockSummary, StreamSummary, uuid_text

if TYPE_CHECKING:
    from migpool.streams.inspect.decoding import DecodedSection
    from migpool.wire.configuration import Configuration

SCHEMA = 1
Json: TypeAlias = "dict[str, object]"


def document(summary: StreamSummary, devices: Sequence[DecodedSection] | None = None) -> Json:
    """The JSON document.

    Arguments:
        summary: of the stream.
        devices: the decoded sections, if any were asked for.
    """
    found: Json = {
        "schema": SCHEMA,
        "kind": "stream",
        "envelope": list(summary.envelope),
        "size": summary.size,
        "walked": summary.walked,
        "complete": summary.problem is None,
        "header": None if summary.header_version is None else {"version": summary.header_version},
        "configuration": None if summary.configuration is None else _configuration(summary.configuration),
        "page_size": summary.page_size,
        "footers": summary.footers,
        "commands": [{**asdict(command), "data": command.data.hex()} for command in summary.commands],
        "ram": _ram(summary),
        "sections": [{**asdict(section), "framing": section.framing.value} for section in summary.sections],
        "eof": summary.eof,
        "description": None if summary.description is None else asdict(summary.description),
        "problem": None if summary.problem is None else asdict(summary.problem),
        "notes": list(summary.notes),
    }
    if devices is not None:
        found["devices"] = [_device(device) for device in devices]
    return found


def _configuration(config: Configuration) -> Json:
    return {
        "machine": config.machine,
        "page_bits": config.page_bits,
        "capabilities": None if config.capabilities is None else list(config.capabilities),
        "uuid": None if config.uuid is None else uuid_text(config.uuid),
    }


def _ram(summary: StreamSummary) -> Json:
    total = BlockSummary("", 0, None)
    for block in summary.blocks:
        total.add(block)
    return {
        "pages": total.pages,
        **{key: value for key, value in asdict(total).items() if key not in ("name", "used_length", "gpa")},
        "multifd_flushes": summary.flushes,
        "blocks": [{**asdict(block), "pages": block.pages} for block in summary.blocks],
    }


def _device(device: DecodedSection) -> Json:
    section = asdict(device.section)
    return {
        **{key: section[key] for key in ("kind", "idstr", "instance_id", "version", "offset", "size")},
        "fields": device.fields,
        "exact": device.exact,
        "fault": device.fault,
        "bytes": None if device.fields is not None else device.payload.hex(),
    }
