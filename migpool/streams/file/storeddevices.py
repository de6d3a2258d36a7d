"""State of VFIO devices that came over multifd channels, turned into what a stream without them has.

Over multifd, chunks of several devices come on several channels in any order, and the main channel has only marks::

    multifd channels                          main channel, as it came        main channel, as it is stored
      index 1 (config): mark 2, config, 1       START: 3, 1                     START: 3, 1
      index 0: data                             PART: [4, data,] 1              PART: [4, data,] 1
                                                END of ram                      END of ram
                                                                                PART: 4, data of index 0, 1
                                                END: 1                          END: 1
                                                FULL: 1, or 6                   FULL: 2, config, 1

So a QEMU whose device does not take its state over multifd loads the file. The chunks wait in a file of their own, as
the machine's other state is still being written when they come; so nothing of them is kept in memory. The description
at the stream's end gets the size that the FULL section has then.

A START section and the chunks of its device come on different connections, and QEMU sends its main channel's bytes
only when its buffer is full or flushed: chunks may be here first. Whose they are is asked when the main channel has
come to the end of RAM, before which all START sections are.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from migpool.errors import MigpoolError, ProtocolError
from migpool.streams.file.file import StreamFile
from migpool.wire.channelreader import DeviceStatePacket
from migpool.wire.devicestate import CHUNK_HEADER_SIZE, chunk_fields
from migpool.wire.records import Mark, config_within, data_record, end_payload
from migpool.wire.sections import Kind, SectionHead, footer, head_bytes, section_part
from migpool.wire.stream import VFIO_SUFFIX, eof, vm_description
from migpool.wire.unread import Buffer
from migpool.wire.vmdesc import find

_ONLY_A_MARK: Final = (end_payload(), int(Mark.CONFIG_LOAD_READY).to_bytes(8, "big"))
"""What a FULL section holds whose config came over multifd."""
_EARLY_LIMIT: Final = 1 << 12
"""Devices of which chunks may come before their START sections: more than any machine has."""


@dataclass(slots=True)
class _Device:
    """What has come of a device: where in the file of chunks each is, by index, and which one is the config."""

    chunks: dict[int, tuple[int, int]] = field(default_factory=dict)
    config: int | None = None

    @property
    def missing(self) -> str:
        """What has not come, in words; empty if all has."""
        last = len(self.chunks) if self.config is None else self.config
        index = next((index for index in range(last) if index not in self.chunks), None)
        return "its config" if self.config is None else "" if index is None else f"chunk {index} of {last}"


class StoredDevices:
    """The devices of one machine whose state comes over multifd channels.

    Arguments:
        folder: where the chunks may wait.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun: dict[tuple[str, int], SectionHead] = {}
        self._all_have_begun = False
        self._devices: dict[tuple[str, int], _Device] = {}
        self._early: dict[tuple[str, int], tuple[int, str]] = {}  # where the first chunk came from of one not begun
        self._spool = -1
        self._size = 0

    def close(self) -> None:
        """Let the chunks go."""
        if self._spool >= 0:
            os.close(self._spool)
            self._spool = -1

    @property
    def heads(self) -> list[SectionHead]:
        """Of the START sections that have come."""
        return list(self._begun.values())

    def begin(self, head: SectionHead) -> None:
        """Note that a device's START section has come."""
        if head.idstr.endswith(VFIO_SUFFIX):
            self._begun[head.idstr, head.instance_id] = head
            self._early.pop((head.idstr, head.instance_id), None)

    def all_have_begun(self) -> None:
        """Note that the main channel has come to where no START section can follow.

        Raises:
            ProtocolError: chunks have come of a device that has none.
        """
        self._all_have_begun = True
        for key, (offset, item) in self._early.items():
            raise _not_begun(key, offset, item)

    def take(self, packet: DeviceStatePacket, item: str) -> None:
        """Keep a chunk.

        Arguments:
            item: where it came from, for errors.

        Raises:
            ProtocolError: it is no VFIO device's, or came twice, or behind the config, or is a config of another form;
                or chunks have come of too many devices that have not begun.
            MigpoolError: the disk takes no more.
        """
        key = packet.header.idstr, packet.header.instance_id
        if key not in self._begun:
            if self._all_have_begun or (key not in self._early and len(self._early) == _EARLY_LIMIT):
                raise _not_begun(key, packet.offset, item)
            self._early.setdefault(key, (packet.offset, item))
        index, config = chunk_fields(packet.payload, len(packet.payload), packet.offset)
        chunk = memoryview(packet.payload)[CHUNK_HEADER_SIZE:]
        device = self._devices.setdefault(key, _Device())
        behind = (
            index < max(device.chunks, default=-1) if config else device.config is not None and index > device.config
        )
        if index in device.chunks or behind or (config and device.config is not None):
            raise ProtocolError(packet.offset, item, f"each chunk of {key[0]!r} once, the config last, found {index}")
        if config:
            config_within(chunk, packet.offset)
            device.config = index
        device.chunks[index] = (self._size, len(chunk))
        self._write(chunk)

    def expect(self, rest: bytes) -> None:
        """Note which devices' configs are not on the main channel.

        Arguments:
            rest: the main channel from the end of RAM on, whole.
        """
        for key, head in self._begun.items():
            if key not in self._devices and _full_at(rest, head) is not None:
                self._devices[key] = _Device()

    @property
    def missing(self) -> str:
        """What has not come of the devices so far known, in words; empty if all has."""
        for (idstr, instance_id), device in self._devices.items():
            if what := device.missing:
                return f"{idstr} ({instance_id}): {what} has not come"
        return ""

    def convert(self, file: StreamFile, rest: bytes, begin: int) -> None:
        """Write the devices' state into the file, and what follows behind it.

        Arguments:
            file: the stream, which ends with ``rest``.
            rest: the main channel from the end of RAM on, whole.
            begin: where it begins in the file.

        Raises:
            ProtocolError: the main channel has no place for a device's config.
            MigpoolError: the disk takes no more.
        """
        if not self._devices:
            return
        configs: list[tuple[int, SectionHead, _Device]] = []
        for key, device in self._devices.items():
            head = self._begun[key]
            at = _full_at(rest, head)
            if at is None:
                right = f"a FULL section of {head.idstr!r} with nothing but a mark, found none"
                raise ProtocolError(begin, "devices on the main channel", right)
            configs.append((at, head, device))
        configs.sort(key=lambda one: one[0])
        file.cut(begin)
        for _, head, device in configs:
            for index in range(device.config or 0):
                file.write(*section_part(head.section_id, [*data_record(self._read(device, index)), end_payload()]))
        done = 0
        sizes: dict[tuple[str, int], int] = {}
        for at, head, device in configs:
            config = self._read(device, device.config or 0)
            file.write(rest[done:at], config)
            done = at + len(end_payload())
            sizes[head.idstr, head.instance_id] = len(config)
        file.write(_with_sizes(rest[done:], sizes))

    def _read(self, device: _Device, index: int) -> bytes:
        offset, size = device.chunks[index]
        return os.pread(self._spool, size, offset)

    def _write(self, chunk: Buffer) -> None:
        try:
            if self._spool < 0:
                with tempfile.TemporaryFile(dir=self._folder) as file:
                    self._spool = os.dup(file.fileno())
            waiting = memoryview(chunk)
            while waiting:
                written = os.pwrite(self._spool, waiting, self._size)
                self._size += written
                waiting = waiting[written:]
        except OSError as error:
            raise MigpoolError(f"{self._folder} takes no more chunks: {error.strerror or error}") from None


def _not_begun(key: tuple[str, int], offset: int, item: str) -> ProtocolError:
    right = f"state of a VFIO device that has begun, found that of {key[0]!r} ({key[1]})"
    return ProtocolError(offset, item, f"{right}: switch x-migration-multifd-transfer off for the device")


def _full_at(rest: bytes, start: SectionHead) -> int | None:
    """Where the payload of a device's FULL section is that holds only a mark; None if there is no such section."""
    head = head_bytes(replace(start, kind=Kind.FULL))
    for mark in _ONLY_A_MARK:
        if (at := rest.find(head + mark + footer(start.section_id))) >= 0:
            return at + len(head)
    return None


def _with_sizes(tail: bytes, sizes: dict[tuple[str, int], int]) -> bytes:
    """The end of a stream, with other sizes of some devices in its description, if it has one."""
    try:
        offset, text = find(tail)
        description = json.loads(text)
        for device in description["devices"]:
            key = device["name"], device.get("instance_id", 0)
            if key in sizes and len(device.get("fields", ())) == 1:
                device["fields"][0]["size"] = sizes[key]
    except (ProtocolError, ValueError, LookupError, TypeError):
        return tail
    before = tail[: offset - len(eof())]
    return b"".join(map(bytes, (before, eof(), *vm_description(json.dumps(description).encode()))))
