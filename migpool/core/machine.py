"""The machine that is migrated: its devices, in order, each in a numbered slot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from migpool.device import Device, MemoryDevice
from migpool.errors import UsageError
from migpool.wire.sections import Kind, SectionHead

RAM_IDSTR = "ram"
"""What QEMU's stream calls the memory; no other section may be called so."""


class Slot:
    """A device's place in a migration.

    Arguments:
        number: the place in the machine's order, from 0; the same at both ends for the same machine.
        device: the device.
    """

    __slots__ = ("device", "name", "number")

    def __init__(self, number: int, device: Device) -> None:
        self.number = number
        self.device = device
        self.name = f"{device.idstr}#{device.instance_id}" if device.instance_id else device.idstr

    def head(self, kind: Kind) -> SectionHead:
        """The head of the device's section on the main channel; its section id is the slot's number."""
        device = self.device
        return SectionHead(kind, self.number, device.idstr, device.instance_id, device.version)

    def __repr__(self) -> str:
        return f"<Slot {self.number} {self.name}>"


class Machine:
    """The devices of one machine.

    Arguments:
        name: the machine's type, as it stands in the stream's configuration; both ends must agree.
        devices: in the order in which they are stopped, saved and loaded.

    Raises:
        UsageError: a device has no usable identity, or two have the same; there is more than one memory, or it is not
            what the stream can carry.

    Attributes:
        slots: every device.
        memory: the one whose state is pages, ``None`` without one.
        iterable: those with state in chunks.
        sections: all the others.
    """

    def __init__(self, name: str, devices: Sequence[Device]) -> None:
        self.name = name
        self.slots = tuple(Slot(number, device) for number, device in enumerate(devices))
        self.memory = self._find_memory()
        self.iterable = tuple(slot for slot in self.slots if slot.device.iterable)
        self.sections = tuple(slot for slot in self.slots if not slot.device.iterable and slot is not self.memory)
        self._by_identity: dict[tuple[str, int], Slot] = {}
        for slot in self.slots:
            self._add(slot)

    def _add(self, slot: Slot) -> None:
        idstr, instance_id = slot.device.idstr, slot.device.instance_id
        if not idstr or not idstr.isascii() or len(idstr) > 255:
            raise UsageError(f"device {slot.number} has the idstr {idstr!r}: give it 1 to 255 ASCII characters")
        if not 0 <= instance_id < 1 << 32:
            raise UsageError(f"device {idstr} has the instance id {instance_id}: it must fit in 32 bits")
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
                "device alone, or with drivers that all support a peer-to-peer state"
            )

    def find(self, idstr: str, instance_id: int) -> Slot | None:
        """The device of that identity, or ``None``."""
        return self._by_identity.get((idstr, instance_id))

    def close(self) -> None:
        """Close every device, whatever goes wrong in one of them; the first error is raised at the end."""
        first = per_device(reversed(self.slots), lambda slot: slot.device.close())
        if first is not None:
            raise first

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def __len__(self) -> int:
        return len(self.slots)


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


def per_device(slots: Iterable[Slot], call: Callable[[Slot], None]) -> Exception | None:
    """Call ``call`` for every device, whatever goes wrong for one of them, and return the first error."""
    first: Exception | None = None
    for slot in slots:
        try:
            call(slot)
        except Exception as error:  # noqa: BLE001 -- the others must still have their turn
            first = first or error
    return first
