"""One part of a KVM state: which sets of registers it consists of, how they are read, and how they are loaded.

A table of parts (``kvm_vcpu_parts.py``, ``kvm_board.py``) is all that is known of a vCPU or of the machine around it. A
host that lacks a part leaves its sets out of the state. A state that has them is loaded on such a host only if nothing
is lost by that; else it is refused.

Which sets a state has, and how long they are, depends on the host alone and never on what the guest does: the stream's
description of a state is made before the machine stops, and must be exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from migpool.device import DeviceError
from migpool_plugins.ioctl import Request
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.state import RegisterFormat, Sets


class Part(ABC):
    """What one or a few ioctls read and write.

    Arguments:
        name: for messages.
        formats: of its sets, in the order in which they travel.
        lacking: the capability that this host lacks for it; empty if it is there.
    """

    def __init__(self, name: str, formats: Sequence[RegisterFormat], lacking: str = "") -> None:
        self.name = name
        self.formats = tuple(formats)
        self.lacking = lacking

    def among(self, sets: Sets) -> dict[str, bytes]:
        """Return those of some sets that are this part's."""
        return {form.name: sets[form.name] for form in self.formats if form.name in sets}

    @abstractmethod
    def read(self, fd: int) -> dict[str, bytes]:
        """Read the sets."""

    @abstractmethod
    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        """Load the sets that have come, and say what had to be left out without loss.

        Raises:
            DeviceError: the kernel refused a value.
        """

    def idle(self, sets: Sets) -> bool:
        """Whether the guest does not use the part in this state: nothing is lost without it. It does by default."""
        return not sets

    def comparable(self, sets: Sets) -> dict[str, bytes]:
        """Take out what may differ between a write and the next read."""
        return dict(sets)


class Whole(Part):
    """A part that is one structure of the kernel, read and written whole.

    Arguments:
        form: of the structure, without its head.
        get: reads it.
        put: writes it.
        head: what the structure begins with to say which one is meant; it does not travel.
        lacking: see :class:`Part`.
        idle: see :meth:`Part.idle`, of its values.
        passing: names of values that go on by themselves, or that the kernel sets anew when they are loaded.
    """

    def __init__(
        self,
        form: RegisterFormat,
        get: Request,
        put: Request,
        *,
        head: bytes = b"",
        lacking: str = "",
        idle: Callable[[Mapping[str, int]], bool] = lambda _values: False,
        passing: Sequence[str] = (),
    ) -> None:
        super().__init__(form.name, [form], lacking)
        self._form = form
        self._get = get
        self._put = put
        self._head = head
        self._idle = idle
        self._passing = passing

    def read(self, fd: int) -> dict[str, bytes]:
        size = len(self._head) + self._form.struct.size
        buffer = bytearray(self._head + bytes(max(size, self._get.size) - len(self._head)))
        kvm_abi.call(fd, self._get, buffer)
        return {self.name: bytes(buffer[len(self._head) : size])}

    def write(self, fd: int, sets: Sets) -> Sequence[str]:
        data = self._head + sets[self.name]
        kvm_abi.call(fd, self._put, bytearray(data.ljust(self._put.size, b"\0")))
        return ()

    def idle(self, sets: Sets) -> bool:
        return self._idle(self._form.values(sets[self.name]))

    def comparable(self, sets: Sets) -> dict[str, bytes]:
        if self.name not in sets or not self._passing:
            return dict(sets)
        values = self._form.values(sets[self.name])
        kept = [0 if name in self._passing else value for name, value in values.items()]
        return {self.name: self._form.struct.pack(*kept)}


class Parts:
    """Parts that have one state together; see :class:`~migpool_plugins.vcpu.backend.Stateful`.

    Any thread will do. The kernel takes these ioctls from any, but makes one wait that comes while another thread is in
    KVM_RUN, and asks that one thread keep to one vCPU for speed: the first ioctl from a new thread pays for moving the
    vCPU's state between processors.

    Arguments:
        fd: of the vCPU or of the VM.
        parts: in the order in which they are loaded.
        read_first: the names of those that are read before the others.
    """

    def __init__(self, fd: int, parts: Sequence[Part], read_first: Sequence[str] = ()) -> None:
        self.fd = fd
        self.parts = parts
        order = {name: place for place, name in enumerate(read_first)}
        there = [part for part in parts if not part.lacking]
        self._reading = sorted(there, key=lambda part: order.get(part.name, len(order)))
        self.layout: Sequence[RegisterFormat] = tuple(form for part in parts for form in part.formats)
        self.blank: Sets = {name: bytes(len(data)) for name, data in self.save().items()}

    def save(self) -> dict[str, bytes]:
        return {name: data for part in self._reading for name, data in part.read(self.fd).items()}

    def load(self, sets: Sets) -> Sequence[str]:
        left_out: list[str] = []
        for part in self.parts:
            there = part.among(sets)
            if not there:
                continue
            if not part.lacking:
                left_out.extend(part.write(self.fd, there))
            elif part.idle(there):
                left_out.append(f"{part.name} ({part.lacking})")
            else:
                raise DeviceError(
                    f"the guest uses {part.name}, which KVM on this host cannot load: it lacks {part.lacking}; "
                    "migrate to a host that has it"
                )
        return left_out

    def comparable(self, sets: Sets) -> dict[str, bytes]:
        return {name: data for part in self.parts for name, data in part.comparable(part.among(sets)).items()}
