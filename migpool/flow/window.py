"""Order and credits, as pure state machines: no threads, no sockets, no clock.

Two questions are answered here. :class:`Reassembly`: which chunk of a device comes next, when they arrive in any order?
:class:`Windows`: how many chunks may be under way, so that memory is bounded and nothing can wait for ever?

Guarantees:

1. A device's chunks come out of ``Reassembly`` in the order of their index, each once, whatever the order they went in.
2. A chunk that was never granted, came before, or comes after the last one is refused with an error that says which.
3. ``Windows`` never has more rooms granted than there are: the sum over the devices of what was granted and not yet
   loaded is at most ``rooms``, always.
4. Every device that has not finished has at least one room: the chunk that its loader needs next is granted already.
   So there is no deadlock, in any order of arrival and with any order of loading.
5. A device that is not iterable holds one room, from when it is its turn to when it is loaded: as many of them at once
   as there are rooms for, in the order of their loading, so that the lowest that is not loaded always has one. The
   rooms of the last ones go to the iterable devices.
6. What a device was granted is not taken back. So rooms move by where new grants go: a device of which no chunk has
   been loaded yet holds one room only; the others share what is left, evenly; what a finished device held goes to them.

Where it comes from: windows by credit are how a receiver bounds reordering memory in transport protocols; the fourth
guarantee is what a shared pool of buffers lacks, and why such pools deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from migpool.errors import DeviceError, UsageError
from migpool.units import count_of

T = TypeVar("T")

DESCRIBED_SHARE = 4
"""Of this many rooms that are left, one is for devices that are not iterable: they are small, and soon loaded."""


class Reassembly(Generic[T]):
    """Puts one device's chunks in order.

    Attributes:
        parked: the chunks that have come and were not taken, by index.
        next: the index of the chunk to be taken next.
    """

    def __init__(self) -> None:
        self.parked: dict[int, T] = {}
        self._final: int | None = None
        self.next = 0

    @property
    def finished(self) -> bool:
        """Whether the last chunk has been taken."""
        return self._final is not None and self.next > self._final

    @property
    def available(self) -> bool:
        """Whether the next chunk is here."""
        return self.next in self.parked

    @property
    def received(self) -> int:
        """How many chunks have come so far, taken or not."""
        return self.next + len(self.parked)

    @property
    def ended(self) -> bool:
        """Whether the last chunk is here or was taken."""
        return self._final is not None

    def put(self, index: int, chunk: T, last: bool, limit: int) -> bool:
        """A chunk has come.

        Arguments:
            index: its place.
            chunk: anything.
            last: whether no chunk comes after it.
            limit: the first index that was not granted.

        Returns:
            Whether it is the one to be taken next.

        Raises:
            DeviceError: it must not come, or not again.
        """
        if index < self.next or index in self.parked:
            raise DeviceError("the chunk has come twice").located_index(index)
        if index >= limit:
            raise DeviceError(
                f"the source sent it with room granted for {count_of(limit, 'chunk')}: it breaks the credit protocol"
            ).located_index(index)
        if self._final is not None and (last or index > self._final):
            raise DeviceError(f"a chunk has come after the last one, {self._final}").located_index(index)
        if last:
            beyond = max(self.parked, default=-1)
            if beyond > index:
                raise DeviceError(f"a chunk has come after the last one, {index}").located_index(beyond)
            self._final = index
        self.parked[index] = chunk
        return index == self.next

    def take(self) -> T | None:
        """The next chunk if it is here, else ``None``."""
        chunk = self.parked.pop(self.next, None)
        if chunk is not None:
            self.next += 1
        return chunk

    def put_and_take(self, index: int, chunk: T, last: bool, limit: int) -> T | None:
        """:meth:`put` and then :meth:`take`, for one who waits already."""
        if index == self.next and index < limit and self._final is None and not self.parked:
            self.next = index + 1
            if last:
                self._final = index
            return chunk
        self.put(index, chunk, last, limit)
        return self.take()

    @property
    def complete(self) -> bool:
        """Whether every chunk up to the last one has come, taken or not."""
        return self._final is not None and self.received > self._final

    def missing(self) -> str:
        """The first chunk that has not come, and what waits behind it, in words; empty if all have come."""
        if self.complete:
            return ""
        first = self.next
        while first in self.parked:
            first += 1
        behind = sum(index > first for index in self.parked)
        return f"chunk {first} has not come" + (f", {behind} later ones have" if behind else "")


@dataclass(frozen=True, slots=True)
class Grant:
    """The source may send chunks of ``device`` up to, not including, index ``limit``."""

    device: int
    limit: int


class Window:
    """How far one device may go.

    Attributes:
        limit: the first index that has not been granted; it only rises.
        loaded: how many chunks have been loaded.
        received: how many chunks have come.
        most: how many have been here at once, come and not loaded.
        finished: whether its last chunk has been loaded.
    """

    __slots__ = ("finished", "limit", "loaded", "most", "received")

    def __init__(self, limit: int = 1) -> None:
        self.limit = limit
        self.loaded = 0
        self.most = 0
        self.received = 0
        self.finished = False

    @property
    def held(self) -> int:
        return 0 if self.finished else self.limit - self.loaded

    @property
    def ahead(self) -> int:
        """How many chunks the source may still send without hearing from us."""
        return self.limit - self.received


class Windows:
    """Shares the rooms of the budget among the devices.

    Arguments:
        devices: how many are iterable; each begins with a window of one chunk.
        rooms: how many chunks the budget holds.
        each: how many rooms an iterable device may hold at most; ``None``: as many as there are.
        described: how many devices are not iterable and come over the multifd channels all the same. Their places are
            behind the others'.
        ahead: how far a source is allowed to run ahead of what has come, in chunks; more than the product of bandwidth
            and round trip, over the chunk's size, is of no use.

    Raises:
        ValueError: there are fewer rooms than devices.

    Attributes:
        low: a device that may send no more chunks than these without hearing from us gets a grant, if there is room.
    """

    def __init__(
        self, devices: int, rooms: int, ahead: int = 32, *, each: int | None = None, described: int = 0
    ) -> None:
        at_once = min(described, max(1, (rooms - devices) // DESCRIBED_SHARE))
        if rooms < devices + at_once:
            raise ValueError(f"{rooms} rooms cannot give {devices + at_once} devices one each")
        self._iterable = devices
        self._windows = [Window() for _ in range(devices)]
        self._windows += [Window(int(place < at_once)) for place in range(described)]
        self._next = devices + at_once
        self._ahead = ahead
        self._each = rooms if each is None else max(1, each)
        self._begun = 0
        self._unfinished = devices
        self.rooms = rooms - at_once
        self._free = self.rooms - devices
        self._hungry: set[int] = set()
        self._settle()

    def of(self, device: int) -> Window:
        """The window of ``device``, to be looked at."""
        return self._windows[device]

    def limit(self, device: int) -> int:
        """The first index of ``device`` that has not been granted."""
        return self._windows[device].limit

    @property
    def granted(self) -> int:
        """How many rooms are granted and not yet loaded, over all devices."""
        return sum(window.held for window in self._windows)

    def opening(self) -> list[Grant]:
        """The first grants: one room each, to as many as may have one."""
        return [Grant(device, window.limit) for device, window in enumerate(self._windows) if window.limit]

    def received(self, device: int) -> Sequence[Grant]:
        """A chunk of ``device`` has come. Returns the grants to make known."""
        window = self._windows[device]
        window.received += 1
        if (held := window.received - window.loaded) > window.most:
            window.most = held
        return self.refill(device)

    def refill(self, device: int) -> Sequence[Grant]:
        """Look whether ``device`` has at most :attr:`low` chunks left to send. Returns the grants to make known.

        It may be asked at any time; after a chunk has come it must be.
        """
        return self._top_up(device) if device < self._iterable and self._windows[device].loaded else ()

    def loaded(self, device: int) -> Sequence[Grant]:
        """A chunk of ``device`` has been loaded and its room is free. Returns the grants to make known."""
        window = self._windows[device]
        window.loaded += 1
        if device >= self._iterable:
            window.limit += 1
            return [Grant(device, window.limit)]
        if window.loaded == 1:
            self._begun += 1
            self._settle()
        if window.loaded == window.limit:
            # Its last room: the device itself must have it, or its next chunk could never come.
            window.limit += 1
            return self._top_up(device) or [Grant(device, window.limit)]
        self._free += 1
        return self._share_out() if self._hungry else ()

    def finished(self, device: int) -> Sequence[Grant]:
        """``device`` has loaded its last chunk: all its rooms go to the others. Returns the grants to make known."""
        window = self._windows[device]
        if device >= self._iterable:
            window.loaded += 1
            window.finished = True
            return self._pass_on()
        if window.loaded:
            self._begun -= 1
        window.loaded += 1
        self._free += window.held
        window.finished = True
        self._hungry.discard(device)
        self._unfinished -= 1
        self._settle()
        return self._share_out()

    def _pass_on(self) -> Sequence[Grant]:
        """A device that is not iterable gives its room back: to the next of its kind, else to the iterable ones."""
        if self._next < len(self._windows):
            following, self._next = self._next, self._next + 1
            self._windows[following].limit = 1
            return [Grant(following, 1)]
        self.rooms += 1
        self._free += 1
        self._settle()
        return self._share_out()

    def _settle(self) -> None:
        """What a device may have, after one has loaded its first chunk or its last."""
        idle = self._unfinished - self._begun
        # All rooms but one for each device that is not being loaded yet, evenly.
        self._share = max(1, min(self._each, (self.rooms - idle) // max(1, self._begun)))
        self._target = min(self._ahead, self._share)
        # A grant wakes a thread at the source, in the middle of what others do: so there are few, each for many chunks.
        # What is left meanwhile must last until the grant is there; of a short window that is one chunk. The numbers:
        # the decision "Grant credit when an eighth of a window is left".
        self.low = min(self._target // 4, max(1, self._target // 8))
        self._batch = max(1, self._target // 2)

    def _share_out(self) -> list[Grant]:
        if not self._free or not self._hungry:
            return []
        hungry = sorted(self._hungry, key=lambda device: self._windows[device].ahead)
        return [grant for device in hungry for grant in self._top_up(device)]

    def _top_up(self, device: int) -> list[Grant]:
        window = self._windows[device]
        ahead = window.limit - window.received
        # A grant a chunk would cost a message a chunk: wait until most of what the source may have ahead is used.
        if window.finished or ahead > self.low:
            self._hungry.discard(device)
            return []
        held = window.held
        wanted = self._target - ahead
        more = min(self._free, wanted, self._share - held)
        if more < wanted:
            self._hungry.add(device)
        else:
            self._hungry.discard(device)
        # And not for a few rooms, as long as the loader has enough to do.
        if more <= 0 or (more < self._batch and held >= self._batch):
            return []
        self._free -= more
        window.limit += more
        return [Grant(device, window.limit)]


def rooms_for(budget: int, chunk: int, devices: int, page: int = 4096) -> tuple[int, int]:
    """How a budget is cut into rooms.

    Arguments:
        budget: bytes.
        chunk: the longest chunk wanted, in bytes.
        devices: how many devices need one room each. With many, chunks are shorter.
        page: the shortest chunk, in bytes.

    Returns:
        the length of a chunk in bytes, and how many of them the budget holds.

    Raises:
        UsageError: a chunk is to be shorter than a page, or the budget has not even a page for each device.
    """
    if chunk < page:
        raise UsageError(f"a chunk of {chunk} bytes is shorter than a page: make it {page} bytes or more")
    if devices:
        chunk = min(chunk, budget // devices // page * page)
    if chunk < page:
        raise UsageError(
            f"a memory budget of {budget} bytes has no room for a page of {page} bytes for each of {devices} devices: "
            f"raise it to {devices * page} at least"
        )
    return chunk, budget // chunk
