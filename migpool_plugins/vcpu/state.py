"""The state of a vCPU, or of what the vCPUs share: sets of registers, and the config that they travel as.

The config is described, so that its stream names every value. Its description has version 1, numbers are big-endian,
and there is no padding::

    magic     4 bytes    "VCPU", or "VBRD" for what the vCPUs share
    layout    u16        2
    index     u16        which vCPU; of a board 0
    kind      8 bytes    the backend and the CPU that the guest sees: "KVM", "KVM-AVX" or "Unicorn", padded with zeros
    program   16 bytes   the first half of the SHA-256 of the guest program
    ...                  a structure for each set that every backend has: regs, sregs, fpu; then the page
    ...                  a subsection for each optional set that the state has, such as vcpu/lapic

The first 32 bytes alone are what ``save_setup`` sends, so that a destination with another backend or another guest
program refuses before the machine is stopped. States do not cross between backends: most of KVM's registers have no
place in Unicorn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from struct import Struct
from types import SimpleNamespace
from typing import Final, Literal, TypeAlias

from migpool.device import DeviceError
from migpool.vmsd.fields import buffer, i64, struct, u8, u16, u32, u64
from migpool.vmsd.steps import Field
from migpool_plugins.vcpu import kvm_abi
from migpool_plugins.vcpu.program import PAGE_SIZE, program_bytes
from migpool_plugins.vmsd import Description

_HEADER: Final = Struct(">4sHH8s16s")
_MAGIC: Final = {"vcpu": b"VCPU", "vcpu-board": b"VBRD"}
_LAYOUT: Final = 2
_KINDS: Final = {"B": u8, "H": u16, "I": u32, "Q": u64, "q": i64}

Sets: TypeAlias = Mapping[str, bytes]
"""A state: sets of registers by name, each in its format's layout. That of a vCPU has ``regs``, ``sregs`` and ``fpu``,
laid out as KVM's structures and as FXSAVE, and its ``page``; what else there is, is optional."""


@dataclass(frozen=True, slots=True)
class RegisterFormat:
    """How a backend holds one set of registers.

    Arguments:
        name: of the set.
        struct: its layout in memory.
        fields: the names of its values, in their order.
        optional: whether a state may be without it; it then travels as a subsection.
        repeats: whether the set is any number of these structures, one after the other.
    """

    name: str
    struct: Struct
    fields: tuple[str, ...]
    optional: bool = False
    repeats: bool = False

    def values(self, data: bytes) -> dict[str, int]:
        """Return the values by name of a set that does not repeat and holds only numbers."""
        return dict(zip(self.fields, self.struct.unpack(data), strict=True))


REGS: Final = RegisterFormat("regs", kvm_abi.REGS, kvm_abi.REGS_FIELDS)
"""The general registers."""
SREGS: Final = RegisterFormat("sregs", kvm_abi.SREGS_BASE, kvm_abi.SREGS_FIELDS)
"""Segments, descriptor tables and control registers."""
FPU: Final = RegisterFormat(
    "fpu",
    # As FXSAVE has it, without MXCSR_MASK, which is a constant of the processor.
    Struct("<HHBxHQQI4x" + "QH6x" * 8 + "32Q"),
    (
        *("fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr"),
        *(f"st{n}_{part}" for n in range(8) for part in ("mantissa", "exponent")),
        *(f"xmm{n}_{half}" for n in range(16) for half in ("low", "high")),
    ),
)
"""The x87 and SSE registers."""
PAGE: Final = RegisterFormat("page", Struct(f"{PAGE_SIZE}s"), ("content",))
"""A vCPU's page of guest memory, as one more set."""


def checksum(state: Sets) -> int:
    """Return the low half of a vCPU's first SSE register."""
    return FPU.values(state["fpu"])["xmm0_low"]


class StateFormat:
    """Encodes and decodes states of one kind.

    Arguments:
        name: the name of the description.
        kind: what both ends must have in common; see :class:`~migpool_plugins.vcpu.backend.VcpuMachine`.
        layout: the sets that a state of this kind may have, in their order.
    """

    def __init__(self, name: Literal["vcpu", "vcpu-board"], kind: str, layout: Sequence[RegisterFormat]) -> None:
        self._magic = _MAGIC[name]
        self._kind = kind
        self._always = tuple(form for form in layout if not form.optional)
        self._optional = tuple(form for form in layout if form.optional)
        self._program = hashlib.sha256(program_bytes()).digest()[:16]
        self._description = _description(name, self._always, self._optional)

    def header(self, index: int) -> bytes:
        """Return the first 32 bytes of the config of the vCPU with this index."""
        return _HEADER.pack(self._magic, _LAYOUT, index, self._kind.encode("ascii"), self._program)

    def encode(self, index: int, sets: Sets) -> bytes:
        """Return the config for a state, whose sets are each in its format's layout."""
        return self._description.save(self._fields(index, sets))

    def describe(self, index: int, sets: Sets) -> Mapping[str, object]:
        """Return the JSON description of what :meth:`encode` returns."""
        return self._description.describe(self._fields(index, sets))

    def decode(self, index: int, data: bytes) -> dict[str, bytes]:
        """Return the sets in a config; raises as :meth:`check_header`."""
        self.check_header(index, data)
        found = self._empty()
        self._description.load(found, data)
        there = {form: vars(found)[form.name] for form in (*self._always, *self._optional)}
        return {form.name: _pack(form, value) for form, value in there.items() if value is not None}

    def measure(self, index: int, data: memoryview) -> int | None:
        """Return how long the config at the start of ``data`` is, or ``None`` if more must come before it is known.

        Raises:
            DeviceError: as for :meth:`check_header`, or the bytes are no such config.
        """
        if len(data) < _HEADER.size:
            return None
        self.check_header(index, bytes(data[: _HEADER.size]))
        return self._description.measure(data, self._empty())

    def check_header(self, index: int, data: bytes) -> None:
        """Refuse a state (a header is enough) that is not for the vCPU with this index.

        Raises:
            DeviceError: one line with what differs and what to do.
        """
        if len(data) < _HEADER.size or data[: len(self._magic)] != self._magic:
            raise DeviceError("this is no vCPU state: the header is missing or damaged")
        _magic, layout, source_index, padded, program = _HEADER.unpack_from(data)
        kind = padded.rstrip(b"\0").decode("ascii", "replace")
        if layout != _LAYOUT:
            raise DeviceError(f"the state has layout {layout}, this vCPU loads {_LAYOUT}: use the same version")
        if kind != self._kind:
            raise DeviceError(
                f"the state is one of {kind}, this vCPU is one of {self._kind}: "
                "set the same backend and cpu at both ends"
            )
        if program != self._program:
            raise DeviceError("the source runs another guest program: use the same version at both ends")
        if source_index != index:
            raise DeviceError(f"the state is that of vCPU {source_index}, this is vCPU {index}")

    def _empty(self) -> SimpleNamespace:
        return SimpleNamespace(**{form.name: None for form in (*self._always, *self._optional)})

    def _fields(self, index: int, sets: Sets) -> SimpleNamespace:
        found = self._empty()
        for form in (*self._always, *self._optional):
            if form.name in sets:
                value = _unpack(form, sets[form.name])
                setattr(found, form.name, value)
                if isinstance(value, list):
                    setattr(found, _count(form), len(value))
        found.magic, found.layout, found.index = self._magic, _LAYOUT, index
        found.kind, found.program = self._kind.encode("ascii").ljust(8, b"\0"), self._program
        return found


@cache
def _description(name: str, always: tuple[RegisterFormat, ...], optional: tuple[RegisterFormat, ...]) -> Description:
    """That of a kind of state: of each there is one, however many vCPUs have it."""
    return Description(
        name,
        version=1,
        fields=[
            buffer("magic", 4),
            u16("layout"),
            u16("index"),
            buffer("kind", 8),
            buffer("program", 16),
            *(struct(form.name, _describe(form)) for form in always),
        ],
        subsections=[
            Description(f"{name}/{form.name}", version=1, fields=_subsection(form), needed=_needed(form.name))
            for form in optional
        ],
    )


def _count(form: RegisterFormat) -> str:
    return f"{form.name}_count"


def _needed(name: str) -> Callable[[object], bool]:
    return lambda state: vars(state)[name] is not None


def _subsection(form: RegisterFormat) -> list[Field]:
    if not form.repeats:
        return [struct(form.name, _describe(form))]
    count = _count(form)
    return [u32("count", attribute=count), struct(form.name, _describe(form), length=count)]


def _unpack(form: RegisterFormat, data: bytes) -> SimpleNamespace | list[SimpleNamespace]:
    values = [SimpleNamespace(**dict(zip(form.fields, entry, strict=True))) for entry in form.struct.iter_unpack(data)]
    return values if form.repeats else values[0]


def _pack(form: RegisterFormat, value: SimpleNamespace | list[SimpleNamespace]) -> bytes:
    entries = value if isinstance(value, list) else [value]
    return b"".join(form.struct.pack(*(vars(entry)[field] for field in form.fields)) for entry in entries)


def _describe(form: RegisterFormat) -> Description:
    return Description(f"cpu/{form.name}", version=1, fields=list(_declare(form.fields, _codes(form.struct))))


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
