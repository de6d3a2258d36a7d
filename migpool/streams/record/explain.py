"""Explains a recording: reads its index, its time stamps, its main channel and the headers of its packets.

Constant memory, whatever the recording's size: payloads of multifd packets are not read at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from migpool.errors import ProtocolError
from migpool.streams.record.answersfile import answers
from migpool.streams.record.channelfile import DeviceKey, Packet, packets
from migpool.streams.record.explanation import (
    BUCKETS,
    MESSAGES,
    Answer,
    ChannelUse,
    DeviceUse,
    Explanation,
    Switchover,
)
from migpool.streams.record.index import Connection, Index, Role, load
from migpool.streams.record.mainfile import MainSummary, summarise
from migpool.streams.record.picture import picture
from migpool.streams.record.showing import show
from migpool.streams.record.times import Times
from migpool.wire.extension import Digest, Failed, GrantMessage, Running, Welcome
from migpool.wire.returnpath import Message, Pong, RecvBitmap, RequestPages, ResumeAck, Shut, SwitchoverAck

__all__ = ["Explanation", "explain", "picture", "show"]


def explain(directory: Path) -> Explanation:
    """Explain a recording; one that is not complete, as far as it goes.

    Arguments:
        directory: where it is.

    Raises:
        UsageError: it is no recording, or a file of it is missing.
    """
    index = load(directory)
    return _Explaining(directory, index).explanation()


class _Explaining:
    """One explanation as it is made."""

    def __init__(self, directory: Path, index: Index) -> None:
        self._directory = directory
        self._index = index
        self._zero = index.connections[0].begin if index.connections else index.begin.monotonic
        main = index.main
        self._summary = summarise(directory / main.source.file) if main and main.source.recorded else MainSummary()
        last = max((self._times(one).last() or one.begin for one in index.connections), default=self._zero)
        if main is not None and main.destination.recorded:
            last = max(last, Times(directory / main.destination.times).last() or 0)
        self._duration = max(1, last - self._zero)
        self._interval = -(-self._duration // BUCKETS)
        self._series = self._duration // self._interval + 1
        self._begin = self._when(self._summary.switchover)
        self._devices: dict[DeviceKey, DeviceUse] = {}

    def explanation(self) -> Explanation:
        index, summary = self._index, self._summary
        said, left_out, grants, shut = self._answers()
        ranked = sorted(index.connections, key=_rank)
        channels = tuple(self._channel(one) for one in ranked)
        multifd = [one for one in channels if one.channel is not None]
        return Explanation(
            directory=str(self._directory),
            listen=index.listen,
            to=index.to,
            began=index.begin.wall,
            duration=self._duration,
            complete=index.complete,
            reason=index.reason,
            machine=summary.machine,
            page_size=summary.page_size,
            interval=self._interval,
            channels=channels,
            devices=tuple(sorted(self._devices.values(), key=lambda one: one.first)),
            answers=said,
            answers_left_out=left_out,
            grants=grants,
            switchover=Switchover(self._begin, self._when(summary.ram_end), self._when(summary.eof), shut),
            evenness=_evenness([one.bytes for one in multifd]),
            switchover_evenness=_evenness([one.switchover_bytes for one in multifd]),
        )

    def _times(self, one: Connection) -> Times:
        return Times(self._directory / one.source.times if one.source.recorded else None)

    def _when(self, offset: int | None) -> int | None:
        """When the byte of the main channel passed."""
        main = self._index.main
        if offset is None or main is None:
            return None
        when = self._times(main).when(offset)
        return None if when is None else when - self._zero

    def _bucket(self, nanoseconds: int) -> int:
        return min(self._series - 1, max(0, nanoseconds // self._interval))

    # ------------------------------------------------------------------ channels

    def _channel(self, one: Connection) -> ChannelUse:
        series = [0] * self._series
        before = during = 0
        last = one.begin - self._zero
        for stamp, offset in self._times(one).pairs():
            last = stamp - self._zero
            series[self._bucket(last)] += offset - before
            if self._begin is not None and last >= self._begin:
                during += offset - before
            before = offset
        use = ChannelUse(
            number=one.number,
            name=one.name,
            channel=one.channel,
            bytes=one.source.bytes,
            answered=one.destination.bytes,
            begin=one.begin - self._zero,
            end=last,
            switchover_bytes=during,
            bytes_over_time=tuple(series),
        )
        if one.role is Role.MAIN:
            known = self._summary
            return replace(
                use, pages=known.pages, zero_pages=known.zero_pages, syncs=known.flushes, trouble=known.trouble
            )
        return self._walked(one, use) if one.role is Role.MULTIFD else use

    def _walked(self, one: Connection, use: ChannelUse) -> ChannelUse:
        """The same, with what a multifd channel's packets say."""
        series = [0] * self._series
        counts: Counter[str] = Counter()
        trouble = ""
        stamps = self._times(one).pairs()
        now, covered = one.begin, 0
        try:
            path = self._directory / one.source.file
            for packet in packets(path, self._summary.page_size) if one.source.recorded else ():
                while covered <= packet.offset and (stamp := next(stamps, None)) is not None:
                    now, covered = stamp
                series[self._bucket(now - self._zero)] += 1
                counts["pages"] += packet.normal
                counts["zero_pages"] += packet.zero
                counts["syncs"] += packet.sync
                if packet.device is not None:
                    counts["device_packets"] += 1
                    self._note_device(packet, packet.device, one.channel or 0, now - self._zero)
        except ProtocolError as error:
            trouble = str(error)
        return replace(
            use,
            packets=sum(series),
            pages=counts["pages"],
            zero_pages=counts["zero_pages"],
            syncs=counts["syncs"],
            device_packets=counts["device_packets"],
            packets_over_time=tuple(series),
            trouble=trouble,
        )

    def _note_device(self, packet: Packet, device: DeviceKey, channel: int, now: int) -> None:
        known = self._devices.get(device) or DeviceUse(*device, 0, 0, (), now, now)
        self._devices[device] = replace(
            known,
            packets=known.packets + 1,
            bytes=known.bytes + packet.payload,
            channels=known.channels if channel in known.channels else (*known.channels, channel),
            first=min(known.first, now),
            last=max(known.last, now),
        )

    # ------------------------------------------------------------------ the return path

    def _answers(self) -> tuple[tuple[Answer, ...], int, int, int | None]:
        main = self._index.main
        said: list[Answer] = []
        left_out = grants = 0
        shut: int | None = None
        if main is None:
            return (), 0, 0, None
        for when, message in answers(self._directory, main, extension=self._summary.credited):
            if isinstance(message, GrantMessage):
                grants += 1
                continue
            if isinstance(message, Shut):
                shut = when - self._zero
            if len(said) < MESSAGES or isinstance(message, Shut | Failed):
                said.append(Answer(when - self._zero, _text(message)))
            else:
                left_out += 1
        return tuple(said), left_out, grants, shut


def _rank(one: Connection) -> tuple[int, int]:
    if one.role is Role.MAIN:
        return 0, one.number
    return (1, one.channel or 0) if one.role is Role.MULTIFD else (2, one.number)


def _evenness(amounts: Sequence[int]) -> float:
    total = sum(amounts)
    return max(amounts) * len(amounts) / total if total else 0.0


def _text(message: Message) -> str:
    match message:
        case Shut(error):
            return f"SHUT {error}"
        case Pong(value):
            return f"PONG {value}"
        case SwitchoverAck():
            return "SWITCHOVER_ACK"
        case RequestPages(address, length, block):
            return f"REQ_PAGES {block or 'same block'} {address:#x}, {length} bytes"
        case RecvBitmap(block):
            return f"RECV_BITMAP {block}"
        case ResumeAck(value):
            return f"RESUME_ACK {value}"
        case Welcome(chunk, devices):
            return f"WELCOME chunks of {chunk} bytes, {devices} devices"
        case Running():
            return "RUNNING"
        case Failed(reason):
            return f"FAILED {reason}"
        case Digest(place):
            return f"DIGEST of device {place}"
        case GrantMessage(device, limit):
            return f"GRANT device {device} to {limit}"
