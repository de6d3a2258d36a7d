"""What fuzzing begins with: the recorded streams and their parts, and small streams of every kind of item."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from migpool.wire.commands import open_return_path, packaged, ping, switchover_start
from migpool.wire.configuration import Configuration, configuration
from migpool.wire.devicestate import DeviceStateHeader
from migpool.wire.multifd import initial_packet
from migpool.wire.ram import RamBlock, block_list, multifd_flush, pages
from migpool.wire.ramheader import sync_header
from migpool.wire.records import (
    config_record,
    data_record,
    end_payload,
    frame_config,
    initial_data_sent,
    setup_payload,
)
from migpool.wire.returnpath import Pong, RequestPages, ResumeAck, Shut, SwitchoverAck, encode
from migpool.wire.sections import section_end, section_part
from migpool.wire.stream import eof, header, vm_description
from migpool.wire.vmdesc import find
from migpool_plugins.vmsd.capture import CapturedSection, sections
from tests.fuzz.fuzz_peer import answer_seeds, connection_seeds
from tests.fuzz.fuzz_vfiouser import client_seeds, server_seeds
from tests.support import DATA
from tests.support.qemu_logs import NAMES, lines_of, real
from tests.support.wire_bytes import section_full, section_start

__all__ = ["SEEDS", "sections_of"]

LARGEST: Final = 60_000


@cache
def _streams() -> tuple[bytes, ...]:
    """The captures that are not too large to be changed many times a second, the smallest first."""
    plain = [path.read_bytes() for path in (DATA / "qemu-streams").glob("*.mig")]
    packed = [gzip.decompress(path.read_bytes()) for path in (DATA / "other-streams").glob("*.mig.gz")]
    return tuple(sorted((each for each in plain + packed if len(each) <= LARGEST), key=lambda each: (len(each), each)))


@cache
def sections_of() -> tuple[CapturedSection, ...]:
    """The sections of one rich machine, without the largest."""
    found = sections((DATA / "qemu-streams" / "q35-rich.mig").read_bytes(), "q35-rich")
    return tuple(each for each in found if len(each.payload) < 5000)


def _small() -> bytes:
    ram = [block_list([RamBlock("a", 8192)]), multifd_flush(), *pages("a", [(0, None), (4096, bytes(4096))])]
    return b"".join(
        [
            *(header(), configuration(Configuration("q", 12, ("x-a",), bytes(16))), open_return_path(), ping(1)),
            *section_start(2, "ram", [*ram, bytes(7) + b"\x10"], version=4),
            *section_start(3, "0000:01:00.0/vfio", setup_payload(b"set-up")),
            *section_part(3, [*data_record(b"state"), initial_data_sent()]),
            *(switchover_start(), *section_end(3, end_payload())),
            *section_full(4, "1/vfio", [*config_record(b"config"), end_payload()]),
            *section_full(5, "d", [*data_record(b"x"), end_payload()]),
            *packaged(b"".join(section_full(6, "e", end_payload()))),
            *(eof(), *vm_description(b"{}")),
        ]
    )


def _described() -> list[bytes]:
    """A stream for each device of the rich machine, with its description alone."""
    front = header() + configuration(Configuration("q", 12, ("x-a",), bytes(16)))
    found = []
    for each in sections_of():
        described = json.dumps({"configuration": {}, "page_size": 4096, "devices": [each.entry]}).encode()
        parts = section_full(7, each.name, each.payload, instance_id=each.instance_id, version=each.version)
        found.append(b"".join([front, *parts, eof(), *vm_description(described)]))
    return found


def _mains() -> list[bytes]:
    return [_small(), *_streams()]


def _channels() -> list[bytes]:
    device = DeviceStateHeader("vfio", 1)
    device.pack(0, 5)
    state = bytes(device.buffer) + b"state"
    return [initial_packet(0), initial_packet(1) + sync_header(1) + state + sync_header(2)]


def _answers() -> list[bytes]:
    messages = (SwitchoverAck(), Pong(1), RequestPages(4096, 8192, "a"), ResumeAck(1), Shut(0))
    return [b"".join(encode(each) for each in messages), *(encode(each) for each in messages)]


def _chunks() -> list[bytes]:
    device = DeviceStateHeader("vfio", 1)
    device.pack(3, 5)
    return [bytes(device.buffer), b"".join(bytes(part) for part in frame_config(b"config"))]


def _texts() -> list[bytes]:
    texts = []
    for each in _streams():
        try:
            texts.append(bytes(find(each)[1]))
        except Exception as error:  # noqa: BLE001 -- some captures have none, on purpose
            assert "VM description" in str(error)  # noqa: PT017
    return texts


def _structures() -> list[bytes]:
    return [json.dumps(each.entry).encode() + b"\0" + each.payload for each in sections_of()]


def _payloads() -> list[bytes]:
    return [bytes((index,)) + each.payload for index, each in enumerate(sections_of())]


def _dumps() -> list[bytes]:
    fields = [{"field": "a", "version_id": 0, "field_exists": False, "size": 4}]
    described = {"vmsd_name": "d", "version_id": 2, "minimum_version_id": 1, "Fields": fields}
    dump = {"d": {"Name": "d", "version_id": 2, "minimum_version_id": 1, "Description": described}}
    return [
        json.dumps(dump).encode(),
        *(text + b"\0" + other for text, other in zip(_texts(), _texts()[1:], strict=False)),
    ]


def _traces() -> list[bytes]:
    return ["\0".join("\n".join(lines_of(path)) for path in real(name)).encode() for name in NAMES]


SEEDS: Final[Mapping[str, Callable[[], list[bytes]]]] = {
    "stream": _mains,
    "inspection": lambda: [*_mains(), *_described()],
    "channel": _channels,
    "answers": _answers,
    "chunks": _chunks,
    "description": _texts,
    "structures": _structures,
    "payloads": _payloads,
    "layouts": _dumps,
    "captures": lambda: list(_streams()),
    "replies": client_seeds,
    "commands": server_seeds,
    "verdicts": answer_seeds,
    "connections": connection_seeds,
    "traces": _traces,
}
"""For each target, inputs from which to begin."""
