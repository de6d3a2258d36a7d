"""What has come to the destination and is not loaded yet, and the credit that the source has, in virtual time.

Which chunk is next and which room is granted is decided by the migration's own code (``migpool/flow/``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeAlias

import simpy

from migpool.core.effects import NextPart
from migpool.core.machine import Slot
from migpool.flow.parts import Parts
from migpool.flow.window import Grant, Reassembly, Windows
from migpool.schedulers.receiver import LEAVE_AFTER
from migpool.sim.tcp import Channel
from migpool.sim.world import World

_Process: TypeAlias = Generator[simpy.Event, Any, Any]


class Piece:
    """A chunk without memory, or the bytes of a config."""

    __slots__ = ("buffer", "index", "last", "length", "payload", "size")

    def __init__(
        self, size: int, payload: bytes = b"", *, index: int = -1, length: int = 0, last: bool = False
    ) -> None:
        self.buffer = memoryview(b"")
        self.size = size
        self.length = length
        self.index = index
        self.last = last
        self.payload = payload


class _OfDevice:
    """What has come of one device.

    Attributes:
        to_come: under receivers: how many pieces are on the way to one.
        carried: by one of them: since when, and the event with which it goes back to its channel.
    """

    def __init__(self) -> None:
        self.chunks: Reassembly[Piece] = Reassembly()
        self.parts: Parts[Piece] = Parts()
        self.takers: set[NextPart] = set()
        self.ended = False
        self.early: set[int] = set()
        self.following = 0
        self.to_come = 0
        self.carried: tuple[float, simpy.Event] | None = None

    def note(self, index: int) -> int:
        """Chunk ``index`` has come; returns how many more there are now that have come before an earlier one."""
        before = len(self.early)
        self.early.add(index)
        while self.following in self.early:
            self.early.remove(self.following)
            self.following += 1
        return len(self.early) - before


class Arrivals:
    """Chunks, parts and configs of all devices.

    Arguments:
        env: the time.
        world: how much room there is.
        iterable, described: the devices whose state comes over the multifd channels.
        later: has the source see something as soon as word of it can be there.

    Attributes:
        most: how many pieces were held at most, come and not yet loaded.
        most_early: how many of these came before an earlier one of the same device, at most.
    """

    def __init__(
        self,
        env: simpy.Environment,
        world: World,
        iterable: Sequence[Slot],
        described: Sequence[Slot],
        later: Callable[[Callable[[], object]], object],
    ) -> None:
        self._env = env
        self._world = world
        self._later = later
        self._placed = [slot.number for slot in (*iterable, *described)]
        self._place = {number: place for place, number in enumerate(self._placed)}
        self._windows = Windows(len(iterable), world.rooms, each=world.each or None, described=len(described))
        self._of = [_OfDevice() for _ in world.devices]
        self._granted = [0] * len(world.devices)
        self._changed = [env.event() for _ in world.devices]
        # Under receivers: of each channel its thread.
        self._receivers = defaultdict[Channel, simpy.Resource](lambda: simpy.Resource(env))
        self._held = self.most = self._early = self.most_early = 0
        self._grant(self._windows.opening())

    def credit(self, number: int, index: int) -> _Process:
        """At the source: wait until chunk ``index`` of a device may be sent; returns the device's limit."""
        while index >= self._granted[number]:
            yield self._changed[number]
        return self._granted[number]

    def arrive(self, number: int, piece: Piece) -> None:
        """A piece of a device has come."""
        place = self._place[number]
        device, limit = self._of[number], self._windows.limit(place)
        if self._world.devices[number].way == "tagged":
            device.parts.put(piece.index, piece, piece.last, limit)
        else:
            device.chunks.put(piece.index, piece, piece.last, limit)
            self._early += device.note(piece.index)
        self._held += 1
        self.most = max(self.most, self._held)
        self.most_early = max(self.most_early, self._early)
        self._wake([number])
        self._granting(self._windows.received(place))

    def is_for_receivers(self, number: int) -> bool:
        """Whether who receives a device's chunk loads it."""
        return self._world.load_taking == "receive" and self._world.devices[number].way != "tagged"

    def receive(self, number: int, piece: Piece, channel: Channel, taking: _Process, whole: simpy.Event) -> None:
        """A piece of a device begins to come to a channel's thread.

        Arguments:
            taking: the thread takes it out of the channel.
            whole: all of it has come.
        """
        self._of[number].to_come += 1
        self._env.process(self._received(number, piece, self._receivers[channel], taking, whole))

    def _received(
        self, number: int, piece: Piece, receiver: simpy.Resource, taking: _Process, whole: simpy.Event
    ) -> _Process:
        device = self._of[number]
        with receiver.request() as thread:
            yield thread
            yield from taking
            yield whole
            device.to_come -= 1
            back = None
            if self.is_for_receivers(number) and device.carried is None:
                back = self._env.event()
                device.carried = float(self._env.now), back
            self.arrive(number, piece)
            if back is not None:
                yield back

    def leave(self, number: int) -> None:
        """The thread that carries a device's job on, if it is a channel's, goes back to that."""
        device = self._of[number]
        if device.carried is not None:
            device.carried[1].succeed()
            device.carried = None

    def next_chunk(self, number: int) -> _Process:
        """Wait for a device's next chunk, and, under receivers, for one that loads it."""
        device = self._of[number]
        while not (device.chunks.available and self._has_thread(number)):
            self.leave(number)
            yield self._changed[number]
        return device.chunks.take()

    def _has_thread(self, number: int) -> bool:
        """Whether a job goes on with the next chunk: a receiver would rather leave it to the next one."""
        if not self.is_for_receivers(number):
            return True
        device = self._of[number]
        return device.carried is not None and not (
            device.to_come and float(self._env.now) - device.carried[0] > LEAVE_AFTER / 1e9
        )

    def next_part(self, effect: NextPart) -> _Process:
        """Wait for any part of a device; returns ``False`` if there will be no more."""
        number = effect.slot.number
        device = self._of[number]
        while (piece := device.parts.take()) is None:
            if device.parts.exhausted:
                self._wake([number])
                return False
            yield self._changed[number]
        device.takers.add(effect)
        effect.index = piece.index
        if device.parts.exhausted:
            self._wake([number])
        return piece

    def end_parts(self, number: int, following: NextPart) -> Piece | None:
        """A job takes no more parts of a device; returns the config to the last of them."""
        device = self._of[number]
        device.takers.discard(following)
        if device.takers or device.ended:
            return None
        device.ended = True
        return device.parts.config

    def loaded(self, number: int, *, last: bool) -> None:
        """A piece of a device has been loaded, and gives its room back."""
        self._held -= 1
        place = self._place[number]
        self._granting(self._windows.finished(place) if last else self._windows.loaded(place))

    def _granting(self, grants: Sequence[Grant]) -> None:
        if grants:
            self._later(lambda: self._grant(grants))

    def _grant(self, grants: Sequence[Grant]) -> None:
        numbers = []
        for grant in grants:
            number = self._placed[grant.device]
            self._granted[number] = max(self._granted[number], grant.limit)
            numbers.append(number)
        self._wake(numbers)

    def _wake(self, devices: Iterable[int]) -> None:
        for number in devices:
            self._changed[number].succeed()
            self._changed[number] = self._env.event()
