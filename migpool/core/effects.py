"""What a job may wait for: all that jobs and threading models know of each other.

A job (``jobs.py``) is a generator that yields effects. It knows no thread, no socket and no clock: whoever interprets
the job performs the effect in its own way, for as long as it takes, and sends the answer back into the generator.

Every effect names its device and the index of the chunk it is about (-1 where there is none), and belongs to a kind
of wait. So every wait of a migration can be traced, cancelled and made to fail by the interpreter, without a word in
the job.

A job may yield the same effect again once it has been answered, with another index: so what a handler wants to keep of
an effect, it copies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeAlias, TypeVar

from migpool.core.buffers import Chunk, Conduit
from migpool.core.machine import Slot
from migpool.device import ConfigLock, Part

if TYPE_CHECKING:
    from migpool.wire.rampacket import PagePacket


class Wait(IntEnum):
    """The kinds of wait, as they stand in a trace."""

    STOP = 0
    """The device stops at the source."""
    ACQUIRE = 1
    """Room to read into."""
    READ = 2
    """The device fills a buffer."""
    CREDIT = 3
    """The destination has no room for this chunk yet."""
    CHANNEL = 4
    """Every channel is busy sending somebody else's chunk."""
    SEND = 5
    """The chunk goes into a channel's socket."""
    SECTION = 6
    """A section goes into the main channel."""
    LOCK = 7
    """Somebody else holds the big lock."""
    SAVE_CONFIG = 8
    """The device's config is saved, under the lock that it declares."""
    STARVED = 9
    """The next chunk has not come yet."""
    WRITE = 10
    """The device takes a chunk."""
    LOADED = 11
    """The chunk's room is given back."""
    LOAD_CONFIG = 12
    """The device's config is loaded, under the lock that it declares."""
    QUEUED = 13
    """The job was submitted and no thread has taken it up yet."""
    START = 14
    """The device starts at the destination."""
    RECEIVE = 15
    """A chunk's payload comes out of a channel's socket."""
    SETUP = 16
    """The device prepares to save or load, or iterates, while the machine still runs."""
    JOIN = 17
    """The migration waits for its jobs to end."""
    QUIESCE = 18
    """The device becomes quiet towards others at the source, before any stops."""
    WAKE = 19
    """The device answers others again at the destination, before any starts."""
    HOLD = 20
    """The device's config is kept for another job: at the destination, until every iterable device has its state."""
    SCAN = 21
    """Pages of memory are looked through: which have been written, which hold zeros alone."""
    SYNC = 22
    """A round of memory ends: SYNCs go out, or every channel has to come to its own."""
    ORDER = 23
    """Devices that must be loaded before this one have not been."""
    OWN_LOCK = 24
    """Another call of the device holds the device's own lock."""
    TURN = 25
    """Another job of the same device reads it."""
    PRECOPIED = 26
    """The device takes state that was sent while the machine ran."""


A_co = TypeVar("A_co", covariant=True)


class Effect(Generic[A_co]):
    """Something a job waits for; ``Effect[int]`` is answered with an ``int``.

    Arguments:
        slot: the device it is about.
        index: the chunk it is about, -1 where there is none.
    """

    __slots__ = ("index", "slot")
    wait: ClassVar[Wait]
    doing: ClassVar[str] = ""
    """The device's method that performs it, for errors and for whoever asks what is under way; empty for all else."""

    def __init__(self, slot: Slot, index: int = -1) -> None:
        self.slot = slot
        self.index = index

    @classmethod
    def performed_by(cls, handler: Callable[[Self], A_co]) -> Callable[[Self], A_co]:
        """Return ``handler``, of which a type checker thereby knows that it gives this effect's answer."""
        return handler


class Locked(Effect[A_co], ABC):
    """Something done in the device with the lock held that the device declares for it.

    The wait for the lock is traced as ``Wait.LOCK`` or ``Wait.OWN_LOCK``, what is done under it as its own kind.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def lock(self) -> ConfigLock:
        """Which lock."""


class Brought(Effect[A_co]):
    """Something that another thread brings, and that can therefore be waited for without a thread."""

    __slots__ = ()


class Acquire(Effect["Chunk | Conduit"]):
    """Room to read a chunk into. The answer is a :class:`~migpool.core.buffers.Chunk`, or a conduit."""

    __slots__ = ()
    wait = Wait.ACQUIRE


class Release(Effect[None]):
    """The room is needed no more. No answer."""

    __slots__ = ("chunk",)
    wait = Wait.ACQUIRE

    def __init__(self, slot: Slot, chunk: Chunk | Conduit) -> None:
        super().__init__(slot)
        self.chunk = chunk


class ReadState(Effect[int]):
    """The device fills ``chunk`` with its next state. The answer is the number of bytes; 0 is the end."""

    __slots__ = ("chunk",)
    wait = Wait.READ
    doing = "save_state"

    def __init__(self, slot: Slot, index: int, chunk: Chunk | Conduit) -> None:
        super().__init__(slot, index)
        self.chunk = chunk


class Credit(Brought[int]):
    """The destination has room for chunk ``index``. The answer is the first index that it has no room for yet."""

    __slots__ = ()
    wait = Wait.CREDIT


class Send(Effect[None]):
    """``chunk`` has gone into a channel. No answer."""

    __slots__ = ("chunk",)
    wait = Wait.SEND

    def __init__(self, slot: Slot, index: int, chunk: Chunk | Conduit) -> None:
        super().__init__(slot, index)
        self.chunk = chunk


class SendConfig(Effect[None]):
    """The config of an iterable device has gone into a channel, as the device's last index. No answer."""

    __slots__ = ("config",)
    wait = Wait.SEND

    def __init__(self, slot: Slot, index: int, config: bytes) -> None:
        super().__init__(slot, index)
        self.config = config


class Turn(Brought[int]):
    """It is this job's turn to read the device, which others save too. The answer is the index of what it reads; -1 if
    another job has found the end of the state.

    The effect's own ``index`` becomes the answer.
    """

    __slots__ = ()
    wait = Wait.TURN


class EndTurn(Effect[None]):
    """The next job may read. No answer.

    Arguments:
        length: how many bytes were read; 0 for the end of the state.
    """

    __slots__ = ("length",)
    wait = Wait.TURN

    def __init__(self, slot: Slot, index: int, length: int) -> None:
        super().__init__(slot, index)
        self.length = length


class EndLane(Effect[int]):
    """This job has no more state to save. The answer is the config's index if all state has been sent, else -1.

    Arguments:
        turn: how the job asked to read.
    """

    __slots__ = ("turn",)
    wait = Wait.TURN

    def __init__(self, slot: Slot, turn: Turn | SavePart) -> None:
        super().__init__(slot)
        self.turn = turn


class SendAhead(Effect[None]):
    """As :class:`Send`, for a job that is not the only one of its device. No answer.

    Arguments:
        chunk: what to send.
        lane: which of the device's jobs it is, from 0.
    """

    __slots__ = ("chunk", "lane")
    wait = Wait.SEND

    def __init__(self, slot: Slot, index: int, chunk: Chunk, lane: int) -> None:
        super().__init__(slot, index)
        self.chunk = chunk
        self.lane = lane


class SavePart(Effect[Part | None]):
    """The device has filled ``chunk`` with a part of its state. The answer is a :class:`~migpool.device.Part`; ``None``
    is the end. The effect's ``index`` becomes the part's tag, its ``number`` how many had been saved before.
    """

    __slots__ = ("chunk", "number")
    wait = Wait.READ
    doing = "save_part"

    def __init__(self, slot: Slot, chunk: Chunk) -> None:
        super().__init__(slot)
        self.chunk = chunk
        self.number = 0


class SendSection(Effect[None]):
    """The device's config has gone into the main channel as a section of its own. No answer."""

    __slots__ = ("config",)
    wait = Wait.SECTION

    def __init__(self, slot: Slot, config: bytes) -> None:
        super().__init__(slot)
        self.config = config


class TakePages(Effect["list[PagePacket] | None"]):
    """The next pages to send of this round. The answer is a list of :class:`~migpool.wire.rampacket.PagePacket`, not
    empty; ``None`` is the end."""

    __slots__ = ()
    wait = Wait.SCAN


class SendPages(Effect[None]):
    """The pages have gone into a channel. No answer.

    Several jobs share a round, so their own count names no packet: once they have gone, ``index`` is the number of the
    first of them on the wire, which the destination knows too.

    Arguments:
        packets: what to send, in this order, over one channel.
    """

    __slots__ = ("packets",)
    wait = Wait.SEND

    def __init__(self, slot: Slot, index: int, packets: list[PagePacket]) -> None:
        self.slot = slot
        self.index = index
        self.packets = packets


class NextChunk(Brought[Chunk]):
    """Chunk ``index`` has come. The answer is a :class:`~migpool.core.buffers.Chunk`."""

    __slots__ = ()
    wait = Wait.STARVED


class NextPart(Brought["Chunk | bool"]):
    """A part of the device's state has come. The answer is a :class:`~migpool.core.buffers.Chunk`; ``False``: no more.
    The effect's ``index`` becomes the part's tag.
    """

    __slots__ = ()
    wait = Wait.STARVED


class LoadPart(Effect[None]):
    """The device has taken a part. No answer."""

    __slots__ = ("chunk",)
    wait = Wait.WRITE
    doing = "load_part"

    def __init__(self, slot: Slot, index: int, chunk: Chunk) -> None:
        super().__init__(slot, index)
        self.chunk = chunk


class EndParts(Effect["Chunk | None"]):
    """This job has no more parts to load. The answer is the config's chunk if all have been loaded, else ``None``.

    Arguments:
        following: how the job asked for parts.
    """

    __slots__ = ("following",)
    wait = Wait.TURN

    def __init__(self, slot: Slot, following: NextPart) -> None:
        super().__init__(slot)
        self.following = following


class WriteState(Effect[None]):
    """The device has taken ``chunk``. No answer."""

    __slots__ = ("chunk",)
    wait = Wait.WRITE
    doing = "load_state"

    def __init__(self, slot: Slot, index: int, chunk: Chunk) -> None:
        super().__init__(slot, index)
        self.chunk = chunk


class Loaded(Effect[None]):
    """The chunk's room goes back, and with it the credit for another. No answer.

    Arguments:
        last: whether the device needs no more room at all.
    """

    __slots__ = ("chunk", "last")
    wait = Wait.LOADED

    def __init__(self, slot: Slot, index: int, chunk: Chunk, last: bool = False) -> None:
        super().__init__(slot, index)
        self.chunk = chunk
        self.last = last


class SaveConfig(Locked[bytes | None]):
    """The device's config has been saved. The answer is its bytes; ``None`` if an optional device needs none."""

    __slots__ = ()
    wait = Wait.SAVE_CONFIG
    doing = "save_config"

    @property
    def lock(self) -> ConfigLock:
        return self.slot.device.save_lock


class SendPart(Effect[None]):
    """A part of the config of a device that is not iterable has gone into a channel. No answer.

    Arguments:
        part: what to send; never longer than a chunk.
        last: whether it is the last one.
    """

    __slots__ = ("last", "part")
    wait = Wait.SEND

    def __init__(self, slot: Slot, index: int, part: bytes | memoryview, *, last: bool) -> None:
        super().__init__(slot, index)
        self.part = part
        self.last = last


class AfterOthers(Brought[bool]):
    """Every device that must be loaded before this one has been. The answer is ``True``."""

    __slots__ = ()
    wait = Wait.ORDER


class KeepConfig(Effect[None]):
    """The device's config is kept for another job, which takes it by :class:`TakeConfig`. No answer.

    Arguments:
        config: the answer to :class:`SaveConfig`.
    """

    __slots__ = ("config",)
    wait = Wait.HOLD

    def __init__(self, slot: Slot, config: bytes | None, index: int = -1) -> None:
        super().__init__(slot, index)
        self.config = config


class TakeConfig(Effect[bytes | None]):
    """Another job has kept the device's config. The answer is what it kept."""

    __slots__ = ()
    wait = Wait.JOIN


class LoadConfig(Locked[None]):
    """The device has loaded its config. No answer.

    Arguments:
        config: what the source's ``save_config`` returned.
        version: that of the source's device; ``None`` where it has been checked.
    """

    __slots__ = ("config", "version")
    wait = Wait.LOAD_CONFIG
    doing = "load_config"

    def __init__(self, slot: Slot, config: bytes, index: int = -1, version: int | None = None) -> None:
        super().__init__(slot, index)
        self.config = config
        self.version = version

    @property
    def lock(self) -> ConfigLock:
        return self.slot.device.load_lock


class SayLoaded(Effect[None]):
    """The device has loaded its config, and those that wait for that know it. No answer."""

    __slots__ = ()
    wait = Wait.ORDER


class IterateInto(Effect[int]):
    """State of a device that runs is in ``chunk``. The answer is how many bytes, 0 if it gave none."""

    __slots__ = ("chunk",)
    wait = Wait.SETUP
    doing = "iterate"

    def __init__(self, slot: Slot, index: int, chunk: Chunk) -> None:
        super().__init__(slot, index)
        self.chunk = chunk


class EndLiveTurn(Effect[None]):
    """A device that runs has been saved for this round; the next chunk of it is ``index``. No answer.

    Arguments:
        moved: how many bytes went in this round. A destination, which need not count them, leaves it out.
    """

    __slots__ = ("moved",)
    wait = Wait.SETUP

    def __init__(self, slot: Slot, index: int, moved: int = 0) -> None:
        super().__init__(slot, index)
        self.moved = moved


READS: tuple[type[Effect[object]], ...] = (ReadState, SavePart)
WRITES: tuple[type[Effect[object]], ...] = (WriteState, LoadPart)
"""What a job does in a device that may block, and compute there."""
SENDS: tuple[type[Effect[object]], ...] = (Send, SendAhead, SendConfig, SendPart)
"""What a job does that sends a chunk or a config: it may block on a channel, and compute there."""

Steps: TypeAlias = Generator[Effect[object], Any, None]
"""What a job's function returns. A generator has one type for all that it is sent, so a job says itself what the answer
is: the type in the effect's brackets. Those who perform effects are checked against that, see ``Handlers.on``."""
