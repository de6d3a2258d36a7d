"""What is fuzzed: each target takes bytes, lets documented errors pass, and fails on anything else.

Every error must be one line, and one of a reader must point into its input.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar
from zlib import crc32

from migpool.errors import DescriptionError, DeviceError, MigpoolError, ProtocolError, UsageError
from migpool.lab.qemu.explain import explain
from migpool.streams.inspect.decoding import decode
from migpool.streams.inspect.document import document
from migpool.streams.inspect.outline import stream_outline
from migpool.streams.inspect.reading import inspect_bytes
from migpool.streams.inspect.summary import StreamSummary
from migpool.vmsd.description import Description
from migpool.vmsd.diff import compare
from migpool.vmsd.jsonform import section_structure
from migpool.vmsd.layout import from_json
from migpool.wire.channelreader import ChannelReader
from migpool.wire.devicestate import DeviceStateParser
from migpool.wire.records import config_within
from migpool.wire.returnpath import ReturnPathReader, encode
from migpool.wire.stream import StreamReader, emit
from migpool.wire.unread import PushReader
from migpool.wire.vmdesc import parse
from migpool_plugins.vmsd.capture import sections
from tests.fuzz.fuzz_peer import connections, verdicts
from tests.fuzz.fuzz_seeds import sections_of
from tests.fuzz.fuzz_vfiouser import commands, replies
from tests.support.inspections import inspect_pipe
from tests.support.wire_bytes import RECORDS_ONLY, emit_description, emit_packet

__all__ = ["BLIND", "TARGETS"]

E = TypeVar("E")


def _one_line(error: MigpoolError, size: int) -> None:
    assert str(error), "an error without a message"
    assert "\n" not in str(error), f"an error of more than one line: {error}"
    if isinstance(error, ProtocolError):
        assert 0 <= error.offset <= size, f"an offset outside of the input: {error}"


def _events(reader: PushReader[E], data: bytes, write: Callable[[E], bytes], *, exact: bool = True) -> None:
    """Read all of ``data`` in two pieces; what was read must be written as it was.

    Arguments:
        exact: byte for byte; else with the same length, since the format has bytes that mean nothing.
    """
    written = bytearray()
    try:
        for piece in (data[: len(data) // 3], data[len(data) // 3 :]):
            reader.feed(piece)
            for event in reader.events():
                written += write(event)
        reader.end()
        for event in reader.events():
            written += write(event)
    except ProtocolError as error:
        _one_line(error, len(data))
    assert len(written) <= len(data), "more was written than was read"
    assert not exact or data.startswith(written), "what was read is not written as it was"


def stream(data: bytes) -> None:
    """A main channel of sections that consist of records."""
    _events(StreamReader(RECORDS_ONLY), data, lambda event: b"".join(emit(event)))


def inspection(data: bytes) -> None:
    """Any main channel, from a file and from a pipe, with its description and without; what is found is shown."""
    for each in (_from_file(data), _from_pipe(data)):
        decoded = decode(each)
        json.dumps(document(each, decoded))
        stream_outline("fuzz", each)


def _from_file(data: bytes) -> StreamSummary:
    return _found(inspect_bytes(data, lambda *_: True), data)


def _from_pipe(data: bytes) -> StreamSummary:
    return _found(inspect_pipe(io.BytesIO(data), lambda *_: True), data)


def _found(summary: StreamSummary, data: bytes) -> StreamSummary:
    if summary.problem is None:
        assert summary.walked == len(data)
    else:
        assert 0 <= summary.problem.offset <= len(data)
        assert "\n" not in str(summary.problem)
    return summary


def walk(data: bytes) -> None:
    """The same for one in eight inputs; of the others half are read from a file and half from a pipe, and decoded."""
    if not (chosen := crc32(data) % 8):
        inspection(data)
    else:
        decode((_from_file if chosen % 2 else _from_pipe)(data))


def channel(data: bytes) -> None:
    """A multifd channel."""
    _events(ChannelReader(), data, lambda event: b"".join(emit_packet(event)), exact=False)


def answers(data: bytes) -> None:
    """A return path, with and without the extension."""
    for extension in (False, True):
        _events(ReturnPathReader(extension=extension), data, encode, exact=not extension)


def chunks(data: bytes) -> None:
    """Headers and configs of the device-state path."""
    parser = DeviceStateParser({("d", 0): None, ("vfio", 1): None}, limit=1 << 20)
    for call in (lambda: parser.parse(data[:288].ljust(288, b"\0"), 0), lambda: config_within(data)):
        try:
            call()
        except ProtocolError as error:
            _one_line(error, max(288, len(data)))


def description(data: bytes) -> None:
    """The JSON at a stream's end: parsed, and written again."""
    try:
        parsed = parse(data)
    except ProtocolError as error:
        _one_line(error, len(data))
        return
    assert parse(emit_description(parsed)) == parsed


def structures(data: bytes) -> None:
    """A description and a payload behind it, separated by a NUL byte: compiled, loaded, saved, shown."""
    text, _, payload = data.partition(b"\0")
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(entry, Mapping):
        return
    try:
        made = Description.from_structure(section_structure(entry, 1))
        _load(made, payload)
    except (DescriptionError, DeviceError) as error:
        _one_line(error, len(payload))


def payloads(data: bytes) -> None:
    """A payload for one of the captured descriptions; the first byte chooses."""
    known = _known()
    try:
        _load(known[data[0] % len(known)] if data else known[0], data[1:])
    except DeviceError as error:
        _one_line(error, len(data))


def _load(made: Description, payload: bytes) -> None:
    made.measure(memoryview(payload), {})
    state: dict[str, object] = {}
    made.load(state, payload)
    saved = made.save(state)
    made.show(state)
    assert len(saved) == len(payload), "a payload that loads is saved with another length"


@cache
def _known() -> tuple[Description, ...]:
    return tuple(Description.from_structure(section_structure(each.entry, each.version)) for each in sections_of())


def layouts(data: bytes) -> None:
    """Two documents to compare, separated by a NUL byte."""
    old, _, new = data.partition(b"\0")
    try:
        documents = [json.loads(text) for text in (old, new or old)]
    except (ValueError, RecursionError):
        return
    try:
        ours, theirs = (from_json(each, "fuzz") for each in documents)
        for change in compare(ours, theirs):
            assert change.reason
    except DescriptionError as error:
        _one_line(error, len(data))


def captures(data: bytes) -> None:
    """The devices of a stream, from its end."""
    try:
        sections(data, "fuzz")
    except DescriptionError as error:
        _one_line(error, len(data))


def traces(data: bytes) -> None:
    """QEMU's trace logs of both sides, separated by a NUL byte."""
    with TemporaryDirectory() as directory:
        logs = [Path(directory, name) for name in ("source", "destination")]
        for path, text in zip(logs, data.partition(b"\0")[::2], strict=True):
            path.write_bytes(text)
        try:
            (run,) = explain(*logs).result.runs
        except UsageError as error:
            _one_line(error, len(data))
            return
    spent, downtime = sum(run.attribution.values()), run.downtime_ms
    assert downtime is not None
    assert abs(spent - downtime) <= 1e-6 * downtime


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (
        *(stream, inspection, channel, answers, chunks),
        *(description, structures, payloads, layouts, captures),
        *(replies, commands, verdicts, connections, traces),
    )
}
BLIND: Final = {**TARGETS, "inspection": walk}
"""What is run on inputs that nothing guides: most time goes into reading them."""
