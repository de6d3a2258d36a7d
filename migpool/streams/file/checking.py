"""Whether the devices' states of a stored stream are whole: walked as ``migpool inspect`` walks them, before the source
is told that the machine is here.

RAM has been understood when it came, and is not read again. What stands behind it is walked by the description at the
stream's end and by the sections' footers, as far as these tell: where more than one length is possible, nothing is
said. A description has every device that is not iterable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from migpool.errors import ProtocolError
from migpool.streams.inspect.reading import inspect_bytes
from migpool.streams.inspect.summary import Framing
from migpool.wire.configuration import Configuration
from migpool.wire.ram import block_list, ram_section_end
from migpool.wire.records import setup_payload
from migpool.wire.sections import Kind, Section, SectionHead, head_bytes, section
from migpool.wire.stream import FileHeader, emit


def check_devices(
    rest: bytes,
    begin: int,
    configuration: Configuration,
    ram: SectionHead | None,
    devices: Iterable[SectionHead],
    starts: Iterable[Section],
) -> None:
    """See to it that what follows the end of RAM is a whole stream's end.

    Arguments:
        rest: what follows.
        begin: where in the file it begins, for errors.
        configuration: the machine's.
        ram: the head of RAM's START section, if it has come.
        devices: the heads of the START sections of devices that consist of records.
        starts: the START sections of other devices.

    Raises:
        ProtocolError: it is damaged; the error says where.
    """
    front: list[bytes | bytearray | memoryview] = [
        *emit(FileHeader()),
        *emit(replace(configuration, capabilities=None)),
    ]
    if ram is not None:
        front += [head_bytes(ram), block_list(()), ram_section_end(ram.section_id)]
    for head in devices:
        front += section(head, setup_payload())
    for start in starts:
        front += emit(start)
    before = b"".join(map(bytes, front))
    found = inspect_bytes(before + rest)
    moved = begin - len(before)
    if found.description is not None and found.description.devices:
        for one in found.sections:
            if one.kind == Kind.FULL.name and one.framing is Framing.GUESSED:
                item = f"FULL section {one.section_id} of {one.idstr!r} ({one.instance_id})"
                right = "a device of the stream's description, found one that it does not have"
                raise ProtocolError(one.offset + moved, item, right)
    if found.problem is not None and not found.problem.ambiguous:
        raise ProtocolError(found.problem.offset + moved, found.problem.item, found.problem.expected)
