"""The config of one vCPU as bytes: a described state, so that its stream says the name of every register.

The fields, numbers big-endian, without padding::

    magic     4 bytes    "VCPU"
    layout    u16        1
    index     u16        which vCPU
    backend   8 bytes    "KVM" or "Unicorn", ASCII, padded with zeros
    program   16 bytes   the first half of the SHA-256 of the guest program
    ...                  a structure for each register set of the backend, in the order in which they are loaded
    page      4096 bytes

The first 32 bytes alone are what ``save_setup`` sends, so that a destination with another backend or another guest
program refuses before the machine is stopped. States do not cross between backends: KVM's registers have no place in
Unicorn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct
from types import SimpleNamespace
from typing import Final

from migpool.device import DeviceError
from migpool_plugins.vcpu.backend import RegisterFormat, VcpuState
from migpool_plugins.vcpu.program import PAGE_SIZE, program_bytes
from migpool_plugins.vmsd import Description
from migpool_plugins.vmsd.declaration import Field
from migpool_plugins.vmsd.fields import buffer, struct, u8, u16, u32, u64

_HEADER: Final = Struct(">4sHH8s16s")
_MAGIC: Final = b"VCPU"
_LAYOUT: Final = 1
_KINDS: Final = {"B": u8, "H": u16, "I": u32, "Q": u64}


class StateFormat:
    """Encodes and decodes the states of the vCPUs of one VM.

    Arguments:
        backend: "KVM" or "Unicorn".
        layout: its register sets, in their order.
    """

    def __init__(self, backend: str, layout: Sequence[RegisterFormat]) -> None:
        self._backend = backend
        self._layout = tuple(layout)
        self._program = hashlib.sha256(program_bytes()).digest()[:16]
        self._description = Description(
            "vcpu",
            fields=[
                buffer("magic", 4),
                u16("layout"),
                u16("index"),
                buffer("backend", 8),
                buffer("program", 16),
                *(struct(entry.name, _describe(entry)) for entry in self._layout),
                buffer("page", PAGE_SIZE),
            ],
        )
        blank = VcpuState({entry.name: bytes(entry.struct.size) for entry in layout}, bytes(PAGE_SIZE))
        self._size = len(self.encode(0, blank))

    def header(self, index: int) -> bytes:
        """Return the first 32 bytes of a config.

        Arguments:
            index: of the vCPU.
        """
        return _HEADER.pack(_MAGIC, _LAYOUT, index, self._backend.encode("ascii"), self._program)

    def encode(self, index: int, state: VcpuState) -> bytes:
        """Return the config for a state of a vCPU."""
        return self._description.save(self._fields(index, state))

    def describe(self, index: int, state: VcpuState) -> Mapping[str, object]:
        """Return the JSON description of what :meth:`encode` returns."""
        return self._description.describe(self._fields(index, state))

    def decode(self, index: int, data: bytes) -> VcpuState:
        """Return the state in a config.

        Arguments:
            index: of the vCPU that it is for.
            data: what :meth:`encode` returned.

        Raises:
            DeviceError: the config is not one for this vCPU.
        """
        self.check_header(index, data)
        found = SimpleNamespace()
        self._description.load(found, data)
        registers = {
            entry.name: entry.struct.pack(*(vars(vars(found)[entry.name])[field] for field in entry.fields))
            for entry in self._layout
        }
        return VcpuState(registers, found.page)

    def measure(self, index: int, data: memoryview) -> int | None:
        """Return how long the config at the start of ``data`` is, or ``None`` before its header has come.

        Raises:
            DeviceError: as for :meth:`check_header`.
        """
        if len(data) < _HEADER.size:
            return None
        self.check_header(index, bytes(data[: _HEADER.size]))
        return self._size

    def check_header(self, index: int, data: bytes) -> None:
        """Refuse a state that is not for this vCPU.

        Arguments:
            index: of the vCPU that it is for.
            data: what :meth:`header` or :meth:`encode` returned at the source.

        Raises:
            DeviceError: one line with what differs and what to do.
        """
        if len(data) < _HEADER.size or data[: len(_MAGIC)] != _MAGIC:
            raise DeviceError("this is no vCPU state: the header is missing or damaged")
        _magic, layout, source_index, padded, program = _HEADER.unpack_from(data)
        backend = padded.rstrip(b"\0").decode("ascii", "replace")
        if layout != _LAYOUT:
            raise DeviceError(f"the state has layout {layout}, this vCPU loads {_LAYOUT}: use the same version")
        if backend != self._backend:
            raise DeviceError(
                f"the state is one of {backend}, this vCPU is one of {self._backend}: "
                f'set backend = "{backend.lower()}" at the destination, or the same backend at both ends'
            )
        if program != self._program:
            raise DeviceError("the source runs another guest program: use the same version at both ends")
        if source_index != index:
            raise DeviceError(f"the state is that of vCPU {source_index}, this is vCPU {index}")

    def _fields(self, index: int, state: VcpuState) -> SimpleNamespace:
        sets = {
            entry.name: SimpleNamespace(
                **dict(zip(entry.fields, entry.struct.unpack(state.registers[entry.name]), strict=True))
            )
            for entry in self._layout
        }
        return SimpleNamespace(
            magic=_MAGIC,
            layout=_LAYOUT,
            index=index,
            backend=self._backend.encode("ascii").ljust(8, b"\0"),
            program=self._program,
            page=state.page,
            **sets,
        )


def _describe(entry: RegisterFormat) -> Description:
    return Description(f"cpu/{entry.name}", fields=list(_declare(entry.fields, _codes(entry.struct))))


def _codes(form: Struct) -> Iterator[str]:
    """Yield the code of each value in a ``struct`` format: ``2QI3x4s`` has Q, Q, I and 4s."""
    for count, code in re.findall(r"(\d*)([a-zA-Z])", form.format):
        if code == "s":
            yield count + code
        elif code != "x":
            yield from code * int(count or 1)


def _declare(names: Iterable[str], codes: Iterable[str]) -> Iterator[Field]:
    for name, code in zip(names, codes, strict=True):
        if code.endswith("s"):
            yield buffer(name, int(code[:-1]))
        else:
            yield _KINDS[code](name)
