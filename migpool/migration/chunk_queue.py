"""Where chunks and the jobs that wait for them meet: each device's chunks in order, and the credits for more.

Guarantees:

1. A job that waits for a chunk is woken, or carried on by whoever brings it, exactly when that chunk is there.
2. When the switch is thrown every wait here ends; so does a job that nobody waits in.

On the data path a lock is taken by ``acquire``: a ``with`` takes twice as long.

Lock order: a device's lock, then nothing. The windows' lock and the return path's are taken alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from migpool.core.buffers import Chunk
from migpool.core.cancel import CancelSwitch
from migpool.core.effects import EndParts, Loaded, NextChunk, NextPart
from migpool.core.handlers import Ready
from migpool.core.machine import Slot
from migpool.device import TaggedDevice
from migpool.flow.parts import Parts
from migpool.flow.window import Grant, Reassembly, Window, Windows
from migpool.transport.splice import SplicedChunk

UNLIMITED = 1 << 62


class PartQueue:
    """One device's parts with tags, and the jobs that wait for one.

    Attributes:
        ready: how each job that was left asked, and what carries it on.
        active: how each job asked that has been given a part and has not said that it is done.
        done: whether the config has been given to a job.
    """

    __slots__ = ("active", "done", "parts", "ready")

    def __init__(self) -> None:
        self.parts: Parts[Chunk] = Parts()
        self.ready: dict[NextPart, Ready] = {}
        self.active: set[NextPart] = set()
        self.done = False

    def take(self, effect: NextPart) -> Chunk | bool | None:
        """A part, ``False`` if there is none any more, ``None`` if none is here. Called with the queue's lock held."""
        chunk = self.parts.take()
        if chunk is not None:
            self.active.add(effect)
            effect.index = chunk.index
            return chunk
        return False if self.parts.exhausted else None


class ChunkQueue:
    """One device's chunks, and the job that waits for the next one."""

    __slots__ = (
        "arrived",
        "lock",
        "order",
        "parts",
        "position",
        "ready",
        "round_end",
        "slot",
        "spliced",
        "starved",
        "window",
    )

    def __init__(self, slot: Slot, position: int) -> None:
        self.slot = slot
        self.position = position
        self.order: Reassembly[Chunk] = Reassembly()
        self.parts = PartQueue() if isinstance(slot.device, TaggedDevice) else None
        # Taken by itself where nobody waits: a condition's own way in is Python code, on every chunk.
        self.lock = threading.Lock()
        self.arrived = threading.Condition(self.lock)
        self.ready: Ready | None = None
        self.starved = False
        # Without credits nothing but the budget bounds what the source sends.
        self.window = Window(UNLIMITED)
        # The index of the chunk without a byte that ended the last round of pre-copy.
        self.round_end = -1
        # Where the next chunk's payload still is, if it is not in its buffer.
        self.spliced: SplicedChunk | None = None


class ChunkQueues:
    """The chunks that have come and are not loaded yet.

    Arguments:
        slots: the devices whose state comes over the multifd channels, in the order in which both ends count them.
        grant: makes a grant known to the source.
        switch: ends every wait.
        give_back: takes the room of a chunk that is loaded.
        size: of a buffer, in bytes.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        grant: Callable[[Grant], None],
        switch: CancelSwitch,
        give_back: Callable[[Chunk], None],
        size: int = 0,
    ) -> None:
        self._size = size
        self.by_slot = {slot.number: ChunkQueue(slot, place) for place, slot in enumerate(slots)}
        self._windows: Windows | None = None
        self._windows_lock = threading.Lock()
        self._grant = grant
        self._switch = switch
        self._give_back = give_back
        switch.on_cancel(self._wake)

    @property
    def credited(self) -> bool:
        """Whether the source knows credits."""
        return self._windows is not None

    def use_credits(self, windows: Windows) -> None:
        """The source knows credits: bound what it may send. Called before the first chunk is asked for."""
        with self._windows_lock:
            self._windows = windows
            for queue in self.by_slot.values():
                queue.window = windows.of(queue.position)
        for grant in windows.opening():
            self._grant(grant)

    def take(self, effect: NextChunk) -> Chunk:
        """Wait for the chunk on the calling thread."""
        queue = self.by_slot[effect.slot.number]
        with queue.lock:
            chunk = queue.order.take()
            while chunk is None:
                self._switch.check()
                queue.starved = True
                queue.arrived.wait()
                chunk = queue.order.take()
            queue.starved = False
        return chunk

    def take_or_call(self, effect: NextChunk, ready: Ready, *, leave: bool) -> Chunk | None:
        """Return the chunk if it is there; if not, have the receiver that brings it call ``ready`` with it.

        Arguments:
            leave: the caller would rather have somebody else carry on, even if the chunk is there, as long as another
                one of this device is sure to come and so to bring somebody. Without that, one receiver could be kept
                by a device for long, with other devices' chunks unread on its channel.
        """
        queue = self.by_slot[effect.slot.number]
        queue.lock.acquire()
        try:
            # The switch is looked at under the lock: its hook takes the callback under the same one, so a callback is
            # either refused here or called there.
            if self._switch.thrown:
                self._switch.check()
            if queue.order.parked and not (leave and self._will_come(queue)):
                chunk = queue.order.take()
                if chunk is not None:
                    queue.starved = False
                    return chunk
            queue.starved = True
            queue.ready = ready
        finally:
            queue.lock.release()
        return None

    def _will_come(self, queue: ChunkQueue) -> bool:
        """Whether another chunk is sure to come: the source may send one, and the last of its round has not come yet.

        The limit is another lock's, and read without it: it only rises, and one too low says no. Atomic: the read.
        """
        received = queue.order.received
        if queue.order.ended or received == queue.round_end + 1:
            return False
        return self._windows is not None and received < queue.window.limit

    def deliver(self, queue: ChunkQueue, chunk: Chunk) -> None:
        """A chunk has come. If a job was left until then, it is carried on here, on the calling thread, or handed on.

        Raises:
            DeviceError: it must not come, or not again.
        """
        if queue.parts is not None:
            self._deliver_part(queue, queue.parts, chunk)
            return
        windows, window = self._windows, queue.window
        if not (chunk.length or chunk.last):
            queue.round_end = chunk.index
        ready = brought = None
        queue.lock.acquire()
        try:
            # What is the windows' is read without their lock: a limit only rises, and did before its grant went out.
            if queue.ready is not None:
                brought = queue.order.put_and_take(chunk.index, chunk, chunk.last, window.limit)
                if brought is not None:
                    ready = queue.ready
                    queue.ready = None
                    queue.starved = False
            elif queue.order.put(chunk.index, chunk, chunk.last, window.limit) and queue.starved:
                queue.arrived.notify()
            # As ``Windows.received``, but that their lock is not taken for each chunk. Atomic: each read and write.
            window.received += 1
            if (held := window.received - window.loaded) > window.most:
                window.most = held
        finally:
            queue.lock.release()
        try:
            if windows is not None and window.limit - window.received <= windows.low:
                with self._windows_lock:
                    grants = windows.refill(queue.position)
                for grant in grants:
                    self._grant(grant)
        finally:
            # Also where there is nobody left to grant to: the callback is taken, and nobody else will call it.
            if ready is not None:
                ready(brought)

    def _deliver_part(self, queue: ChunkQueue, those: PartQueue, chunk: Chunk) -> None:
        grants: Sequence[Grant] = ()
        if self._windows is not None:
            with self._windows_lock:
                grants = self._windows.received(queue.position)
        carried: list[tuple[Ready, Chunk | bool]] = []
        with queue.lock:
            # The limit is read here, where parts are counted: those that were granted later may have been put before
            # this one. It only rises, and did before its grant went out. Atomic: the read.
            those.parts.put(chunk.index, chunk, chunk.last, queue.window.limit)
            for effect in list(those.ready):
                if (answer := those.take(effect)) is None:
                    break
                carried.append((those.ready.pop(effect), answer))
            queue.arrived.notify_all()
        try:
            for grant in grants:
                self._grant(grant)
        finally:
            for ready, answer in carried:
                ready(answer)

    def take_part(self, effect: NextPart) -> Chunk | bool:
        """Wait for a part on the calling thread."""
        queue, those = self._parts(effect.slot)
        with queue.lock:
            while (answer := those.take(effect)) is None:
                self._switch.check()
                queue.starved = True
                queue.arrived.wait()
            queue.starved = False
        return answer

    def part_or_call(self, effect: NextPart, ready: Ready, *, leave: bool) -> Chunk | bool | None:
        """Return a part if one is here; if not, have the receiver that brings one call ``ready`` with it."""
        del leave  # whoever brings the next part takes that one
        queue, those = self._parts(effect.slot)
        with queue.lock:
            self._switch.check()
            answer = those.take(effect)
            queue.starved = answer is None
            if answer is None:
                those.ready[effect] = ready
        return answer

    def end_parts(self, effect: EndParts) -> Chunk | None:
        """A job has been told that there are no more parts. The last one gets the config."""
        queue, those = self._parts(effect.slot)
        with queue.lock:
            those.active.discard(effect.following)
            if those.active or those.done:
                return None
            those.done = True
            return those.parts.config

    def _parts(self, slot: Slot) -> tuple[ChunkQueue, PartQueue]:
        queue = self.by_slot[slot.number]
        assert queue.parts is not None
        return queue, queue.parts

    def loaded(self, effect: Loaded) -> None:
        """A device has loaded a chunk: its room is free."""
        # The room first, then the credit: when the chunk that it allows arrives, there is a buffer for it.
        self._give_back(effect.chunk)
        windows = self._windows
        if windows is None:
            return
        position = self.by_slot[effect.slot.number].position
        self._windows_lock.acquire()
        try:
            grants = windows.finished(position) if effect.last else windows.loaded(position)
        finally:
            self._windows_lock.release()
        for grant in grants:
            self._grant(grant)

    def most_held(self, slot: Slot) -> int:
        """How many bytes of buffers a device has held at once, at the most; 0 where no credits bound it."""
        queue = self.by_slot.get(slot.number)
        return 0 if queue is None or self._windows is None else queue.window.most * self._size

    def starved(self) -> str:
        """The first device whose job waits for a chunk, and which; empty if none does."""
        return self._first_missing(starved=True)

    def missing(self) -> str:
        """The first device that is not complete, and what it waits for; empty if all are."""
        return self._first_missing(starved=False)

    def _first_missing(self, *, starved: bool) -> str:
        for queue in self.by_slot.values():
            with queue.lock:
                if starved and not queue.starved:
                    continue
                if missing := (queue.order if queue.parts is None else queue.parts.parts).missing():
                    return f"{queue.slot.name}: {missing}"
        return ""

    def _wake(self) -> None:
        for queue in self.by_slot.values():
            with queue.lock:
                left = [] if queue.ready is None else [queue.ready]
                queue.ready = None
                if queue.parts is not None:
                    left += queue.parts.ready.values()
                    queue.parts.ready.clear()
                queue.arrived.notify_all()
            for ready in left:
                ready()
