"""What an explanation of a recording says. Values only; all times are nanoseconds since the first connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from migpool.units import format_size


@dataclass(slots=True)
class ChannelUse:
    """What one connection carried from source to destination.

    Attributes:
        number: the connection's, in the order in which the source opened them.
        name: "main channel", "channel 3", "preempt channel" (of a postcopy).
        channel: the multifd channel's number; ``None`` for others.
        bytes: how many passed, the return path not among them.
        answered: how many came back.
        begin: when it was opened.
        end: when its last byte from the source passed.
        packets: multifd packets, SYNCs among them.
        pages: pages of RAM with contents.
        zero_pages: pages of zeros.
        syncs: SYNC packets; on the main channel, MULTIFD_FLUSHes.
        device_packets: packets with device state.
        switchover_bytes: how many of the bytes passed from the beginning of the switchover on.
        bytes_over_time: bytes in each of the explanation's intervals.
        packets_over_time: packets that began in each of them; empty for the main channel.
        compression: how the pages are packed; empty if they are not.
        trouble: what could not be understood, and where; empty if all could.
    """

    number: int
    name: str
    channel: int | None
    bytes: int
    answered: int
    begin: int
    end: int
    packets: int = 0
    pages: int = 0
    zero_pages: int = 0
    syncs: int = 0
    device_packets: int = 0
    switchover_bytes: int = 0
    bytes_over_time: list[int] = field(default_factory=list)
    packets_over_time: list[int] = field(default_factory=list)
    compression: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class DevicePacket:
    """One DEVICE_STATE packet.

    Attributes:
        channel: the number of the channel that carried it.
        offset: where in the channel it begins.
        when: when it passed.
        idstr, instance_id: the device.
        index: of the chunk, or the tag of the part.
        flags: 1: this is the config, or the last part of it.
        size: bytes of state or config, without headers.
    """

    channel: int
    offset: int
    when: int
    idstr: str
    instance_id: int
    index: int
    flags: int
    size: int


@dataclass(slots=True)
class DeviceUse:
    """The state of one device on the multifd channels.

    Attributes:
        idstr: its name.
        instance_id: its number.
        packets: how many.
        bytes: of state and config, without headers.
        channels: the numbers of the channels that carried it.
        first: when its first packet passed.
        last: when its last packet passed.
        kind: "state" of an iterable device, whose chunks have an order; "parts" with tags, which need none; or the
            "config" of one that is not iterable. Parts whose tags are those of chunks cannot be told from them.
        version: of a config.
        length: of a config, in bytes, without the version before it.
        live_rounds: in how many rounds it gave something while the machine ran.
        highest: the highest index of a packet, or tag of a part; the config's is not counted.
        count: the index of the last packet, which says how many parts there are; ``None`` if it has not come.
    """

    idstr: str
    instance_id: int
    packets: int
    bytes: int
    channels: list[int]
    first: int
    last: int
    kind: Literal["state", "parts", "config"] = "state"
    version: int | None = None
    length: int | None = None
    live_rounds: int = 0
    highest: int = -1
    count: int | None = None

    @property
    def what(self) -> str:
        """What these packets are, in a few words."""
        if self.kind == "config":
            said = "no version" if self.version is None else f"v{self.version}"
            return f"config, {said}, {format_size(self.length or 0)}"
        words = f"parts, tags up to {self.highest}" if self.kind == "parts" else "state in order"
        return f"{words}; {self.live_rounds} live rounds" if self.live_rounds else words


@dataclass(frozen=True, slots=True)
class Answer:
    """A message of the return path.

    Attributes:
        when: when it passed.
        text: what it says: "PONG 1", "SHUT 0".
    """

    when: int
    text: str


@dataclass(frozen=True, slots=True)
class Switchover:
    """The switchover's milestones as they passed; ``None`` for those that the recording does not have.

    Attributes:
        begin: SWITCHOVER_START, sent when the machine has stopped.
        ram_end: the end of RAM.
        eof: the end of the devices' sections.
        shut: the destination's last word.
    """

    begin: int | None
    ram_end: int | None
    eof: int | None
    shut: int | None

    @property
    def end(self) -> int | None:
        """The last milestone: SHUT if there is one, else EOF."""
        return self.shut if self.shut is not None else self.eof


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a recording shows.

    Attributes:
        directory: the recording.
        listen: where the source connected to.
        to: where the destination was.
        began: when the recorder began, UTC, in ISO 8601.
        duration: how long it took until the last byte had passed.
        complete: whether the recording is.
        reason: why not; empty if it is.
        machine: the machine's type; empty if the recording does not say.
        page_size: bytes of a page.
        capabilities: what the source asked for, by name, with what it means if that is known here.
        interval: how long each interval of the series is.
        channels: the main channel first, then the multifd channels by their numbers, then what is neither.
        devices: whose state went over multifd channels, in the order of their first packets.
        device_packets: the packets of these, channel by channel, in the order in which they came on each; of every
            channel the first :data:`PACKETS`.
        answers: what the destination said.
        answers_left_out: how many more messages there were.
        grants: how many grants there were; they are not among the answers.
        switchover: when it was.
        evenness: what the busiest multifd channel carried, divided by the mean of all; 1 is even. 0 without channels.
        switchover_evenness: the same for the bytes of the switchover; 0 if there were none.
    """

    directory: str
    listen: str
    to: str
    began: str
    duration: int
    complete: bool
    reason: str
    machine: str
    page_size: int
    capabilities: Mapping[str, str]
    interval: int
    channels: tuple[ChannelUse, ...]
    devices: tuple[DeviceUse, ...]
    device_packets: tuple[DevicePacket, ...]
    answers: tuple[Answer, ...]
    answers_left_out: int
    grants: int
    switchover: Switchover
    evenness: float
    switchover_evenness: float
