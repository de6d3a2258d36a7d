"""The machine that is migrated: its devices, in order, each in a numbered slot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from threading import Lock

from migpool.core.device_calls import of
from migpool.core.returned import attributes
from migpool.device import ConfigChannel, Device, MemoryDevice
from migpool.errors import DeviceError, UsageError
from migpool.wire.sections import Kind, SectionHead

RAM_IDSTR = "ram"
"""What QEMU's stream calls the memory; no other section may be called so."""


class Slot:
    """A device's place in a migration.

    Arguments:
        number: the place in the machine's order, from 0; the same at both ends for the same machine.
        device: the device.
        plugin: the name of the plug-in that made it, for errors; may be empty.

    Attributes:
        lock: the device's own, for a config that does not need the big one.
        after: the numbers of the slots whose config is loaded before this one's, as far as the machine has them.
        awaited: whether another slot's config is loaded after this one's.
    """

    __slots__ = ("after", "awaited", "device", "lock", "name", "number", "plugin")

    def __init__(self, number: int, device: Device, plugin: str = "") -> None:
        self.number = number
        self.plugin = plugin
        self.device = device
        self.lock = Lock()
        self.after: tuple[int, ...] = ()
        self.awaited = False
        self.name = f"{device.idstr}#{device.instance_id}" if device.instance_id else device.idstr

    def head(self, kind: Kind) -> SectionHead:
        """The head of the device's section on the main channel."""
        device = self.device
        return SectionHead(kind, self.section_id, device.idstr, device.instance_id, device.version)

    @property
    def section_id(self) -> int:
        """What its sections are known by.

        Never 0: in QEMU every device has that id until its first section has come, so a PART with it would be taken for
        that of the machine's first device.
        """
        return self.number + 1

    def __repr__(self) -> str:
        return f"<Slot {self.number} {self.name}>"


class Machine:
    """The devices of one machine.

    Arguments:
        name: the machine's type, as it stands in the stream's configuration; both ends must agree.
        devices: in the order in which they are stopped, saved and loaded.
        plugins: for each of them the name of the plug-in that made it, for errors; empty for none.

    Raises:
        UsageError: a device has no usable identity, or two have the same; there is more than one memory, or it is not
            what the stream can carry.

    Attributes:
        slots: every device.
        memory: the one whose state is pages, ``None`` without one.
        iterable: those with state in chunks.
        sections: all the others.
    """

    def __init__(self, name: str, devices: Sequence[Device], plugins: Sequence[str] = ()) -> None:
        self.name = name
        self.slots = tuple(
            _slot(number, device, plugins[number] if plugins else "") for number, device in enumerate(devices)
        )
        self.memory = self._find_memory()
        self.iterable = tuple(slot for slot in self.slots if slot.device.iterable)
        self.sections = tuple(slot for slot in self.slots if not slot.device.iterable and slot is not self.memory)
        self._by_identity: dict[tuple[str, int], Slot] = {}
        for slot in self.slots:
            self._add(slot)
        by_name = {slot.name: slot.number for slot in self.slots}
        for slot in self.slots:
            slot.after = tuple(by_name[name] for name in slot.device.after if name in by_name)
            for number in slot.after:
                self.slots[number].awaited = True
            if slot.after and slot not in self.sections:
                raise UsageError(f"{slot.name} is to be loaded after others, which only a device's section can be")
            self._check_section(slot)
        self._ranked = self._in_order()

    def _check_section(self, slot: Slot) -> None:
        """Refuse an early or optional device whose config could not be a section, or would come too late."""
        device = slot.device
        what = "early" if device.early else "optional"
        if not (device.early or device.optional):
            return
        if slot not in self.sections or device.config_channel == "multifd":
            raise UsageError(f"{slot.name} is {what}, which only a device with a section on the main channel can be")
        if device.early and (others := [number for number in slot.after if not self.slots[number].device.early]):
            raise UsageError(f"{slot.name} is early, but to be loaded after {self.slots[others[0]].name}, which is not")

    def _in_order(self) -> tuple[Slot, ...]:
        """Every device behind those that must be loaded before it: one iterable device first, the others last.

        Those that are not iterable by priority. Why one comes first: the decision "One large device is saved before the
        small ones".

        Raises:
            UsageError: devices must be loaded before each other.
        """
        order = TopologicalSorter({slot.number: slot.after for slot in self.slots})
        try:
            order.prepare()
        except CycleError as error:
            circle = error.args[1][:0:-1]  # the first stands again at the end, and each comes before the next
            begin = circle.index(min(circle))
            names = " after ".join(self.slots[at].name for at in (*circle[begin:], *circle[:begin], circle[begin]))
            raise UsageError(
                f"no device of these can be loaded first: {names}: change what they are loaded after"
            ) from None
        first = self.iterable[0].number if len(self.iterable) > 1 else -1
        able: list[tuple[int, int, int]] = []
        ranked: list[Slot] = []
        while order.is_active():
            for number in order.get_ready():
                device = self.slots[number].device
                turn = 0 if number == first else 1 + device.iterable
                heappush(able, (turn, -device.priority, number))
            _, _, following = heappop(able)
            ranked.append(self.slots[following])
            order.done(following)
        return tuple(ranked)

    def crossing(self, default: ConfigChannel) -> Crossing:
        """How each device's state crosses.

        Arguments:
            default: where the config of a device that is not iterable crosses, if the device does not say.

        Raises:
            UsageError: the memory would have to wait for something.
        """
        stays: set[int] = set()
        early = tuple(slot for slot in self._ranked if slot.device.early)
        late: set[int] = set() if self.memory is None else {self.memory.number}
        for slot in self._ranked:
            # Whoever waits for a section is one: the thread that reads sections must not wait for a job that does.
            channel = "main-channel" if slot.device.optional else slot.device.config_channel or default
            if slot in self.sections and (channel == "main-channel" or stays.intersection(slot.after)):
                stays.add(slot.number)
            if late.intersection(slot.after):
                late.add(slot.number)
        others = [slot for slot in self._ranked if slot not in early and slot is not self.memory]
        jobs = [slot for slot in others if slot.number not in stays]
        sections = [slot for slot in others if slot.number in stays]

        def cut(slots: Sequence[Slot], end: bool) -> tuple[Slot, ...]:
            return tuple(slot for slot in slots if (slot.number in late) is end)

        return Crossing(cut(jobs, False), cut(sections, False), cut(jobs, True), cut(sections, True), early)

    def _add(self, slot: Slot) -> None:
        idstr, instance_id = slot.device.idstr, slot.device.instance_id
        if idstr == RAM_IDSTR and slot is not self.memory:
            raise UsageError(f"device {slot.number} is called {RAM_IDSTR}, but is no memory: give it another idstr")
        if self._by_identity.setdefault((idstr, instance_id), slot) is not slot:
            raise UsageError(f"two devices are called {slot.name}: give one of them another instance id")

    def _find_memory(self) -> Slot | None:
        found = [slot for slot in self.slots if isinstance(slot.device, MemoryDevice)]
        if len(found) > 1:
            raise UsageError(f"the machine has {len(found)} memories: make one of them, with several blocks")
        for slot in found:
            if slot.name != RAM_IDSTR or slot.device.iterable:
                raise UsageError(f"the memory is called {slot.name}: its idstr must be {RAM_IDSTR}, not iterable")
        return found[0] if found else None

    def require_peer_to_peer(self) -> None:
        """Refuse a machine in which a device that has stopped could still be reached into by one that has not.

        Raises:
            UsageError: several devices reach into others by themselves, and some of these cannot be quiet first.
        """
        reaching = [slot for slot in self.slots if slot.device.peer_to_peer is not None]
        not_quiet = [slot.name for slot in reaching if not slot.device.peer_to_peer]
        if not_quiet and len(reaching) > 1:
            raise UsageError(
                f"{', '.join(not_quiet)} cannot be quiet before stopping, and so could still reach into one of the "
                f"{len(reaching)} devices with peer-to-peer access that has stopped already: migrate with one such "
                "device alone, or with drivers that all support a peer-to-peer state; VFIO devices that reach no other "
                "have the option peer_to_peer = false"
            )

    def find(self, idstr: str, instance_id: int) -> Slot | None:
        """The device of that identity, or ``None``."""
        return self._by_identity.get((idstr, instance_id))

    def close(self) -> None:
        """Close every device, whatever goes wrong in one of them; the first error is raised at the end."""
        first = per_device(reversed(self.slots), lambda slot: of(slot, "close", slot.device.close))
        if first is not None:
            raise first

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class Crossing:
    """How a machine's devices cross, each behind those that must be loaded before it.

    Jobs are submitted in this order at both ends, which is what keeps a small pool from waiting for ever.

    Attributes:
        jobs: over the multifd channels: first those that are not iterable, as far as that is possible.
        sections: on the main channel.
        late_jobs: over the multifd channels once the memory has all its pages.
        late_sections: on the main channel, after that.
        early: on the main channel, before all others and the memory, while the machine runs.
    """

    jobs: tuple[Slot, ...]
    sections: tuple[Slot, ...]
    late_jobs: tuple[Slot, ...]
    late_sections: tuple[Slot, ...]
    early: tuple[Slot, ...] = ()

    @property
    def described(self) -> tuple[Slot, ...]:
        """The devices that are not iterable and cross over the multifd channels, in the order of their loading."""
        return tuple(slot for slot in (*self.jobs, *self.late_jobs) if not slot.device.iterable)


def _slot(number: int, device: Device, plugin: str) -> Slot:
    """The device's slot, if what it says of itself can be used.

    Raises:
        UsageError: it cannot.
    """
    try:
        attributes(device, plugin)
    except (DeviceError, ValueError) as error:
        raise UsageError(f"device {number} {error}") from error
    return Slot(number, device, plugin)


class NamedDevice(Device):
    """A device of which nothing but its name is needed: where jobs are run without a machine.

    Arguments:
        number: what its name ends with.
    """

    iterable = True

    def __init__(self, number: int) -> None:
        self.idstr = f"device-{number}"

    def save_config(self) -> bytes:
        return b""

    def load_config(self, data: bytes) -> None:
        del data


def in_lanes(slots: Sequence[Slot], jobs: Callable[[Slot], int]) -> Iterator[tuple[Slot, int]]:
    """The order in which devices' jobs are submitted: the first of each device, and then those that go beside it.

    Arguments:
        slots: the devices, in order.
        jobs: how many jobs a device has.

    Returns:
        A device, and which of its jobs, from 0.
    """
    counted = [(slot, jobs(slot)) for slot in slots]
    for lane in range(max((count for _, count in counted), default=0)):
        yield from ((slot, lane) for slot, count in counted if lane < count)


def per_device(slots: Iterable[Slot], call: Callable[[Slot], None]) -> Exception | None:
    """Call ``call`` for every device, whatever goes wrong for one of them, and return the first error."""
    first: Exception | None = None
    for slot in slots:
        try:
            call(slot)
        except Exception as error:  # noqa: BLE001 -- the others must still have their turn
            first = first or error
    return first
