"""The records by which an iterable device's section on the main channel says how long it is.

They are those of a VFIO device in QEMU 10.0: u64 marks, big-endian, until the end mark::

    ffffffffef100003  set-up begins                 START: this, perhaps one data record, the end mark
    ffffffffef100004  data: u64 size, size bytes    PART: any number of them
    ffffffffef100005  the initial data has been sent
    ffffffffef100002  config: as many bytes as the device's own schema says
    ffffffffef100006  load the config that came over multifd now: all of a FULL section (QEMU 10.1 and later, if asked)
    ffffffffef100001  end of the section's payload  END and FULL hold only this when state goes over multifd

The marks 5 and 6 end a payload as the end mark does. The config of a device whose state goes over multifd channels is
its last chunk there, and stands between the config mark and the end mark: :func:`frame_config`, :func:`config_within`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from migpool.errors import ProtocolError
from migpool.wire.sections import Schema, SectionHead, measured
from migpool.wire.unread import Buffer, Need, Steps, Unread, skip, take

_U64 = struct.Struct(">Q")
_PAIR = struct.Struct(">QQ")
_TAG = struct.Struct(">I")
_RECORD_LIMIT: Final = 1 << 16
CONFIG_FRAME: Final = 16
"""How many bytes :func:`frame_config` adds to a config."""


class Mark(IntEnum):
    """The marks between records."""

    END = 0xFFFFFFFFEF100001
    CONFIG = 0xFFFFFFFFEF100002
    SETUP = 0xFFFFFFFFEF100003
    DATA = 0xFFFFFFFFEF100004
    INITIAL_DATA_SENT = 0xFFFFFFFFEF100005
    CONFIG_LOAD_READY = 0xFFFFFFFFEF100006


ENDING: Final = frozenset({Mark.END, Mark.INITIAL_DATA_SENT, Mark.CONFIG_LOAD_READY})
"""The marks that end a payload."""

_MARKS: Final = {int(mark): mark for mark in Mark}
_RAW: Final = {mark: _U64.pack(mark) for mark in Mark}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an iterable device's section.

    Arguments:
        mark: what it is.
        data: the bytes of a DATA or CONFIG record; empty for other marks.
        offset: where its mark stood.
    """

    mark: Mark
    data: Buffer = b""
    offset: int = 0


def setup_payload(data: Buffer = b"") -> list[Buffer]:
    """The payload of a device's START section, with ``data`` for its set-up if there is any."""
    return [_RAW[Mark.SETUP], *(data_record(data) if len(data) else ()), _RAW[Mark.END]]


def data_record(data: Buffer) -> list[Buffer]:
    """One record of state: two buffers, of which the second is ``data`` itself."""
    return [_PAIR.pack(Mark.DATA, len(data)), data]


def tagged_record(tag: int, part: Buffer) -> list[Buffer]:
    """One record of a part with a tag: its tag in 32 bits, then the part itself. QEMU has no such records."""
    return [_PAIR.pack(Mark.DATA, _TAG.size + len(part)), _TAG.pack(tag), part]


def tag_within(data: memoryview) -> tuple[int, memoryview]:
    """The tag and the part in a record that :func:`tagged_record` made.

    Raises:
        ProtocolError: there is not even a tag.
    """
    if len(data) < _TAG.size:
        raise ProtocolError(0, "part of a device's state", f"a tag of {_TAG.size} bytes first, found {len(data)}")
    tag: int = _TAG.unpack_from(data)[0]
    return tag, data[_TAG.size :]


def initial_data_sent() -> bytes:
    """The record that stands in the place of the end mark when the initial data has been sent."""
    return _RAW[Mark.INITIAL_DATA_SENT]


def config_record(config: Buffer) -> list[Buffer]:
    """The record of a device's config. It says no length: the reader's schema must know it."""
    return [_RAW[Mark.CONFIG], config]


def end_payload() -> bytes:
    """The end mark: all that END and FULL hold when state goes over multifd channels."""
    return _RAW[Mark.END]


def begins_with_record(data: Buffer, *, config: bool = False) -> bool:
    """Whether a payload of records begins so: with a mark that can be the first, or the only one.

    Arguments:
        data: from its beginning on.
        config: whether the first one may be that of a config, too.
    """
    mark = _MARKS.get(_U64.unpack_from(data)[0]) if len(data) >= _U64.size else None
    return mark is not None and (config or mark is not Mark.CONFIG)


def records_size(data: Buffer, config: Callable[[Buffer], int | None] | None = None) -> int | None:
    """How long the payload of records is that begins ``data``, for a reader that does not know the device.

    Arguments:
        data: from the payload's first mark on.
        config: says how long the config is that begins what it is given, or ``None`` if that has too few bytes.

    Returns:
        the length in bytes, or ``None`` if ``data`` ends before it.

    Raises:
        ProtocolError: there is something else between two records; or a config, and nothing knows its length.
    """
    at = 0
    while at + _U64.size <= len(data):
        mark = _MARKS.get(_U64.unpack_from(data, at)[0])
        if mark in ENDING:
            return at + _U64.size
        if mark is Mark.DATA:
            if at + _PAIR.size > len(data):
                return None
            at += _PAIR.size + int(_PAIR.unpack_from(data, at)[1])
        elif mark is Mark.SETUP:
            at += _U64.size
        elif mark is Mark.CONFIG and config is not None:
            size = config(memoryview(data)[at + _U64.size :])
            if size is None:
                return None
            at += _U64.size + size
        else:
            raise ProtocolError(at, "record", "a mark of set-up, data or an end; found another one")
    return None


def records_in(payload: Buffer) -> tuple[Record, ...]:
    """The records of a whole payload; its config is all that stands between the config's mark and the last mark.

    Arguments:
        payload: up to and with the mark that ends it.

    Raises:
        ProtocolError: it does not consist of records; its offset is counted from the payload's beginning.
    """
    view, at = memoryview(payload), 0
    records: list[Record] = []
    while at + _U64.size <= len(view):
        start, mark = at, _MARKS.get(_U64.unpack_from(view, at)[0])
        at += _U64.size
        data: Buffer = b""
        if mark is None:
            raise ProtocolError(start, "record", f"a mark of ffffffffef100001 to 6, found {view[start:at].hex()}")
        if mark is Mark.DATA:
            end = at + _U64.size + int.from_bytes(view[at : at + _U64.size], "big")
            if end > len(view):
                raise ProtocolError(at, "record", f"at most {len(view)} bytes of data, found {end - at - _U64.size}")
            data, at = view[at + _U64.size : end], end
        elif mark is Mark.CONFIG:
            data, at = view[at : -_U64.size], max(at, len(view) - _U64.size)
        records.append(Record(mark, data, start))
        if mark in ENDING and at == len(view):
            return tuple(records)
    raise ProtocolError(at, "record", "a mark that ends the payload, found none")


def payload_of(records: Sequence[Record]) -> list[Buffer]:
    """The payload that these records were read from."""
    buffers: list[Buffer] = []
    for record in records:
        if record.mark is Mark.DATA:
            buffers += data_record(record.data)
        elif record.mark is Mark.CONFIG:
            buffers += config_record(record.data)
        else:
            buffers.append(_RAW[record.mark])
    return buffers


def largest_config(chunk: int) -> int:
    """The most bytes of a config over a multifd channel, where a chunk may have ``chunk`` bytes."""
    return chunk - CONFIG_FRAME


def frame_config(config: Buffer) -> list[Buffer]:
    """A config as it travels over a multifd channel: config mark, ``config`` itself, end mark."""
    return [_RAW[Mark.CONFIG], config, _RAW[Mark.END]]


def config_within(chunk: Buffer, offset: int = 0) -> memoryview:
    """The config inside a device's last chunk, as a view of it.

    Arguments:
        chunk: the chunk, without headers.
        offset: where the chunk begins, for errors.

    Raises:
        ProtocolError: the chunk does not begin with the config mark or does not end with the end mark.
    """
    view = memoryview(chunk)
    if len(view) < CONFIG_FRAME:
        raise ProtocolError(offset, "device config", f"at least {CONFIG_FRAME} bytes, found {len(view)}")
    first, last = bytes(view[:8]), bytes(view[-8:])
    if first != _RAW[Mark.CONFIG]:
        raise ProtocolError(offset, "device config", f"the mark {_RAW[Mark.CONFIG].hex()} first, found {first.hex()}")
    if last != _RAW[Mark.END]:
        end = offset + len(view) - 8
        raise ProtocolError(end, "device config", f"the mark {_RAW[Mark.END].hex()} last, found {last.hex()}")
    return view[8:-8]


@dataclass(frozen=True, slots=True)
class Passed:
    """A record that was passed over.

    Arguments:
        mark: what it is.
        size: bytes of its data.
        offset: where its mark stood.
    """

    mark: Mark
    size: int = 0
    offset: int = 0


def pass_records(unread: Unread, head: SectionHead, limit: int) -> Steps[tuple[list[Passed], bool]]:
    """Pass over records without keeping what they hold, up to and with the one that ends the payload.

    Arguments:
        unread: at the payload.
        head: of the section.
        limit: how many bytes one record may have.

    Returns:
        the records, and whether the payload has ended: else a config follows, or what is no record.
    """
    item = f"record of {head}"
    passed: list[Passed] = []
    while True:
        if unread.available < _U64.size:
            yield Need(_U64.size, item)
        offset, mark = unread.offset, _MARKS.get(_U64.unpack(unread.peek(_U64.size))[0])
        if mark is None or mark is Mark.CONFIG:
            return passed, False
        unread.skip(_U64.size)
        size = 0
        if mark is Mark.DATA:
            size = int.from_bytes((yield from take(unread, _U64.size, item)), "big")
            if size > limit:
                raise ProtocolError(offset + 8, item, f"at most {limit} bytes in one record, found {size}")
            yield from skip(unread, size, item)
        passed.append(Passed(mark, size, offset))
        if mark in ENDING:
            return passed, True


def read_records(unread: Unread, head: SectionHead, schema: Schema, limit: int) -> Steps[tuple[Record, ...]]:
    """Read records up to and with the one that ends the payload; at most ``limit`` bytes in all."""
    item = f"record of {head}"
    records: list[Record] = []
    left = limit
    while True:
        offset = unread.offset
        raw = yield from take(unread, 8, item)
        mark = _MARKS.get(int.from_bytes(raw, "big"))
        data: Buffer = b""
        if len(records) == _RECORD_LIMIT:
            raise ProtocolError(offset, item, f"at most {_RECORD_LIMIT} records in one section, found more")
        if mark is None:
            raise ProtocolError(offset, item, f"a mark of ffffffffef100001 to 6, found {raw.hex()}")
        if mark is Mark.DATA:
            size = int.from_bytes((yield from take(unread, 8, item)), "big")
            if size > left:
                raise ProtocolError(offset + 8, item, f"at most {limit} bytes in one section, found a record of {size}")
            data = yield from take(unread, size, item)
        elif mark is Mark.CONFIG:
            data = yield from measured(unread, head, schema, left, _RAW[Mark.END])
        left -= 8 + len(data)
        records.append(Record(mark, data, offset))
        if mark in ENDING:
            return tuple(records)
        if left < 0:
            raise ProtocolError(offset, item, f"at most {limit} bytes in one section")
