"""Explains a recording: which channel carried what, when the switchover was, what the destination said.

It reads the index, the time stamps, the main channel and the headers of the packets; of their payloads nothing but the
four bytes of a config's version. All times are nanoseconds since the source opened its first connection. Memory is
constant, whatever the recording's size: series have a few more than :data:`BUCKETS` entries at most, of the return
path's messages the first :data:`MESSAGES` are kept, and of each channel's packets with device state the first
:data:`PACKETS`; grants are only counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from migpool.errors import ProtocolError
from migpool.streams.envelope.foreign import foreign
from migpool.streams.record.channels import (
    DeviceKey,
    MainSummary,
    Packet,
    answers,
    packets,
    pages_beside,
    resumed,
    summarise,
)
from migpool.streams.record.explanation import (
    Answer,
    ChannelUse,
    DevicePacket,
    DeviceUse,
    Explanation,
    Switchover,
)
from migpool.streams.record.index import Connection, Index, Role, Times, beginning, has_resumed, load
from migpool.streams.record.over_multifd import config_version
from migpool.wire import returnpath
from migpool.wire.devicestate import CONFIG_VERSION_SIZE
from migpool.wire.ram import RamBlock
from migpool.wire.ramreader import UNSTATED
from migpool.wire.returnpath import CAPABILITIES, DESCRIBED_CAPABILITY, Failed, GrantMessage, Shut
from migpool.wire.stream import POSTCOPY_RESUMED, TLS_HANDSHAKE
from migpool.wire.trailer import CheckpointReply

BUCKETS: Final = 120
MESSAGES: Final = 200
PACKETS: Final = 1000


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
        self._packets: list[DevicePacket] = []
        self._iterable = frozenset(self._summary.iterable)
        self._resumed = has_resumed(directory, index)
        self._blocks: tuple[RamBlock, ...] = ()

    def explanation(self) -> Explanation:
        index, summary = self._index, self._summary
        said, left_out, grants, shut = self._answers()
        ranked = sorted(index.connections, key=_rank)
        channels = tuple(self._channel(one) for one in ranked)
        multifd = [one for one in channels if one.channel is not None]
        for device in self._devices.values():
            self._tell(device)
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
            capabilities={name: CAPABILITIES.get(name, "") for name in summary.capabilities},
            interval=self._interval,
            channels=channels,
            devices=tuple(sorted(self._devices.values(), key=lambda one: one.first)),
            device_packets=tuple(self._packets),
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
        begin = one.begin - self._zero
        use = ChannelUse(one.number, one.name, one.channel, one.source.bytes, one.destination.bytes, begin, begin)
        use.bytes_over_time = [0] * self._series
        before = 0
        for stamp, offset in self._times(one).pairs():
            use.end = stamp - self._zero
            use.bytes_over_time[self._bucket(use.end)] += offset - before
            if self._begin is not None and use.end >= self._begin:
                use.switchover_bytes += offset - before
            before = offset
        if one.role is Role.MAIN:
            known = self._summary
            use.pages, use.zero_pages, use.syncs = known.pages, known.zero_pages, known.flushes
            use.trouble = known.trouble
        elif one.role is Role.MULTIFD:
            self._note_packets(one, use)
        else:
            self._note_other(one, use)
        return use

    def _note_other(self, one: Connection, use: ChannelUse) -> None:
        """Note what a connection is that is neither a main channel nor a multifd channel."""
        first = beginning(self._directory, one)
        if first.startswith(POSTCOPY_RESUMED):
            use.name = "main channel, resumed"
            found = resumed(self._directory / one.source.file)
            self._blocks = tuple(RamBlock(block.name, UNSTATED) for block in found.blocks)
            use.zero_pages = sum(block.zero for block in found.blocks)
            use.pages = sum(block.pages for block in found.blocks) - use.zero_pages
            use.trouble = "" if found.problem is None else str(found.problem)
        elif self._summary.postcopy and not first.startswith(TLS_HANDSHAKE):
            self._note_preempt(one, use, "preempt channel", self._summary.blocks)
        elif self._resumed and not first.startswith(TLS_HANDSHAKE):
            self._note_preempt(one, use, "preempt channel, resumed", self._blocks)
        elif first:
            use.trouble = f"this is {foreign(first)}"
        else:
            use.name = f"{use.name}, closed without a byte"

    def _note_preempt(self, one: Connection, use: ChannelUse, name: str, blocks: Sequence[RamBlock]) -> None:
        """Note what a postcopy's preempt channel carried."""
        use.name = name
        if one.source.recorded:
            file = self._directory / one.source.file
            use.pages, use.zero_pages, use.trouble = pages_beside(file, self._summary.page_size, blocks)

    def _note_packets(self, one: Connection, use: ChannelUse) -> None:
        """Note what a multifd channel's packets say."""
        use.packets_over_time = [0] * self._series
        if not one.source.recorded:
            return
        stamps = self._times(one).pairs()
        now, covered = one.begin, 0
        try:
            for packet in packets(self._directory / one.source.file, self._summary.page_size):
                while covered <= packet.offset and (stamp := next(stamps, None)) is not None:
                    now, covered = stamp
                use.packets += 1
                use.packets_over_time[self._bucket(now - self._zero)] += 1
                use.pages += packet.normal
                use.zero_pages += packet.zero
                use.syncs += packet.sync
                if packet.compression:
                    use.compression = packet.compression
                if packet.device is not None:
                    use.device_packets += 1
                    if use.device_packets <= PACKETS:
                        what = packet.index, int(packet.config), packet.payload
                        passed = DevicePacket(use.channel or 0, packet.offset, now - self._zero, *packet.device, *what)
                        self._packets.append(passed)
                    self._note_device(packet, packet.device, one, now - self._zero)
        except ProtocolError as error:
            use.trouble = str(error)

    def _note_device(self, packet: Packet, device: DeviceKey, one: Connection, now: int) -> None:
        use = self._devices.setdefault(device, DeviceUse(*device, 0, 0, [], now, now))
        channel = one.channel or 0
        use.packets += 1
        use.bytes += packet.payload
        if channel not in use.channels:
            use.channels.append(channel)
        use.first, use.last = min(use.first, now), max(use.last, now)
        if packet.config:
            use.count = packet.index
        else:
            use.highest = max(use.highest, packet.index)
        if packet.index == 0 and self._is_config(device):
            use.version = config_version(self._directory / one.source.file, packet)

    def _is_config(self, device: DeviceKey) -> bool:
        return DESCRIBED_CAPABILITY in self._summary.capabilities and device not in self._iterable

    def _tell(self, device: DeviceUse) -> None:
        """Say what a device's packets are, once all have been seen."""
        key = device.idstr, device.instance_id
        if self._is_config(key):
            device.kind, device.length = "config", max(0, device.bytes - CONFIG_VERSION_SIZE)
        elif device.count is not None and device.highest >= device.count:
            device.kind = "parts"  # chunks are counted from 0, and the config is the next one
        device.live_rounds = self._summary.live_rounds.get(key, 0)

    # ------------------------------------------------------------------ the return path

    def _answers(self) -> tuple[tuple[Answer, ...], int, int, int | None]:
        main = self._index.main
        said: list[Answer] = []
        left_out = grants = 0
        shut: int | None = None
        if main is None:
            return (), 0, 0, None
        extensions = {"extension": self._summary.credited, "colo": self._summary.checkpoints > 0}
        for when, message in answers(self._directory, main, **extensions):
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


_TEXTS: Final[Mapping[type[returnpath.Message], str]] = {
    Shut: "SHUT {0.error}",
    returnpath.Pong: "PONG {0.value}",
    returnpath.SwitchoverAck: "SWITCHOVER_ACK",
    returnpath.RequestPages: "REQ_PAGES {0.block} {0.address:#x}, {0.length} bytes",
    returnpath.RecvBitmap: "RECV_BITMAP {0.block}",
    returnpath.ResumeAck: "RESUME_ACK {0.value}",
    returnpath.Welcome: "WELCOME chunks of {0.chunk} bytes, {0.devices} devices",
    returnpath.Running: "RUNNING",
    Failed: "FAILED {0.reason}",
    returnpath.Digest: "DIGEST of device {0.place}",
}


def _text(message: returnpath.Message | CheckpointReply) -> str:
    if isinstance(message, CheckpointReply):
        return f"COLO: {message.name}"
    if isinstance(message, returnpath.RequestPages) and message.block is None:
        message = replace(message, block="same block")
    return _TEXTS[type(message)].format(message)
