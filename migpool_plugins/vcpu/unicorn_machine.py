"""A VM of Unicorn, the CPU emulator: one engine for each vCPU, for hosts without KVM.

The engine runs flat 64-bit code with full privilege and without page tables, so the guest leaves by a halt. Of the
machine only what the guest can change migrates: the general registers, the FS and GS bases, the x87 and SSE
registers, and the page. ``emu_start`` is a foreign call that releases the interpreter's lock, so vCPUs run side by
side.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Final, Protocol, TypeAlias

from migpool.device import DeviceError
from migpool_plugins.vcpu import kvm_abi, program
from migpool_plugins.vcpu.backend import RegisterFormat, VcpuState

# Imported by name: the package is optional, and its annotations differ between its versions. What is used of it is
# written down in Engine.
unicorn = importlib.import_module("unicorn")
x86_const = importlib.import_module("unicorn.x86_const")

_GENERAL: Final = (
    *(x86_const.UC_X86_REG_RAX, x86_const.UC_X86_REG_RBX, x86_const.UC_X86_REG_RCX, x86_const.UC_X86_REG_RDX),
    *(x86_const.UC_X86_REG_RSI, x86_const.UC_X86_REG_RDI, x86_const.UC_X86_REG_RSP, x86_const.UC_X86_REG_RBP),
    *(x86_const.UC_X86_REG_R8, x86_const.UC_X86_REG_R9, x86_const.UC_X86_REG_R10, x86_const.UC_X86_REG_R11),
    *(x86_const.UC_X86_REG_R12, x86_const.UC_X86_REG_R13, x86_const.UC_X86_REG_R14, x86_const.UC_X86_REG_R15),
    *(x86_const.UC_X86_REG_RIP, x86_const.UC_X86_REG_RFLAGS),
)
_BASES: Final = (x86_const.UC_X86_REG_FS_BASE, x86_const.UC_X86_REG_GS_BASE)
_CONTROLS: Final = (
    *(x86_const.UC_X86_REG_FPCW, x86_const.UC_X86_REG_FPSW, x86_const.UC_X86_REG_FPTAG, x86_const.UC_X86_REG_MXCSR),
)
# The physical x87 registers: ST0 to ST7 would name them relative to the stack's top, which travels in FPSW.
_X87: Final = tuple(range(x86_const.UC_X86_REG_FP0, x86_const.UC_X86_REG_FP0 + 8))
_SSE: Final = tuple(range(x86_const.UC_X86_REG_XMM0, x86_const.UC_X86_REG_XMM0 + 16))
_ALL: Final = _GENERAL + _BASES + _CONTROLS + _X87 + _SSE

_REGS: Final = RegisterFormat("regs", kvm_abi.REGS, kvm_abi.REGS_FIELDS)
_BASE_SET: Final = RegisterFormat("bases", Struct("<2Q"), ("fs_base", "gs_base"))
_CONTROL_SET: Final = RegisterFormat("fpu", Struct("<3H2xI"), ("fcw", "fsw", "ftw", "mxcsr"))
_X87_SET: Final = RegisterFormat(
    "x87", Struct("<" + "QH" * 8), tuple(f"fp{n}_{part}" for n in range(8) for part in ("mantissa", "exponent"))
)
_SSE_SET: Final = RegisterFormat(
    "sse", Struct("<32Q"), tuple(f"xmm{n}_{half}" for n in range(16) for half in ("low", "high"))
)
_PARTS: Final = (
    (_REGS, slice(0, 18)),
    (_BASE_SET, slice(18, 20)),
    (_CONTROL_SET, slice(20, 24)),
    (_X87_SET, slice(24, 32)),
    (_SSE_SET, slice(32, 48)),
)
"""Each register set, and where its registers stand in the batch that is read and written at once."""
_LOW_HALF: Final = Struct("<Q")
_NEVER_REACHED: Final = program.CODE + program.PAGE_SIZE


Value: TypeAlias = int | tuple[int, int]
"""A register: a number, or for an x87 register its mantissa (64 bits) and its sign and exponent (16 bits)."""


class Engine(Protocol):
    """What is used of ``unicorn.Uc``."""

    def mem_map_ptr(self, address: int, size: int, perms: int, ptr: int) -> None: ...
    def hook_add(
        self,
        htype: int,
        callback: Callable[[object, int, int, int, int, object], None],
        user_data: object,
        begin: int,
        end: int,
    ) -> int: ...
    def hook_del(self, h: int) -> None: ...
    def mem_map(self, address: int, size: int, perms: int) -> None: ...
    def mem_write(self, address: int, data: bytes) -> None: ...
    def mem_read(self, address: int, size: int) -> bytearray: ...
    def reg_read(self, reg_id: int) -> int: ...
    def reg_write(self, reg_id: int, value: int) -> None: ...
    def reg_read_batch(self, reg_ids: Sequence[int]) -> tuple[Value, ...]: ...
    def reg_write_batch(self, reg_data: Sequence[tuple[int, Value]]) -> None: ...
    def emu_start(self, begin: int, until: int) -> None: ...
    def emu_stop(self) -> None: ...


class UnicornVcpu:
    """One vCPU of a :class:`UnicornMachine`; see :class:`~migpool_plugins.vcpu.backend.VirtualCpu`."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._page = program.page_address(index)
        self.halts_at = program.OUT_BY_HALT
        self.engine: Engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.engine.mem_map(program.CODE, program.PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self.engine.mem_write(program.CODE, program.program_bytes())
        self.engine.mem_map(self._page, program.PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)

    def boot(self, registers: Mapping[str, int]) -> None:
        for name, value in registers.items():
            self.engine.reg_write(getattr(x86_const, f"UC_X86_REG_{name.upper()}"), value)

    def run_batch(self) -> None:
        try:
            self.engine.emu_start(self.engine.reg_read(x86_const.UC_X86_REG_RIP), _NEVER_REACHED)
        except unicorn.UcError as error:
            raise DeviceError(f"the guest left by an error of Unicorn ({error}), not by a halt") from error
        address = self.engine.reg_read(x86_const.UC_X86_REG_RIP)
        if address != self.halts_at + 1:
            raise DeviceError(f"the guest was stopped at {address:#x}, not behind its halt")

    def put(self, name: str, value: int) -> None:
        self.engine.reg_write(getattr(x86_const, f"UC_X86_REG_{name.upper()}"), value)

    def save(self) -> VcpuState:
        values = self.engine.reg_read_batch(_ALL)
        registers: dict[str, bytes] = {}
        for entry, part in _PARTS:
            # A plain number, an x87 register's two parts, or the 128 bits of an SSE register.
            if entry is _SSE_SET:
                registers[entry.name] = b"".join(int(x).to_bytes(16, "little") for x in _plain(values[part]))
            else:
                registers[entry.name] = entry.struct.pack(*_plain(values[part]))
        return VcpuState(registers, bytes(self.engine.mem_read(self._page, program.PAGE_SIZE)))

    def load(self, state: VcpuState) -> None:
        found = {entry.name: entry.struct.unpack(state.registers[entry.name]) for entry, _part in _PARTS}
        x87, sse = found["x87"], found["sse"]
        values: list[Value] = [
            *(*found["regs"], *found["bases"], *found["fpu"]),
            *zip(x87[::2], x87[1::2], strict=True),
            *(low | high << 64 for low, high in zip(sse[::2], sse[1::2], strict=True)),
        ]
        try:
            self.engine.reg_write_batch(tuple(zip(_ALL, values, strict=True)))
        except unicorn.UcError as error:
            raise DeviceError(f"Unicorn refused a register ({error}): the state is damaged") from error
        self.engine.mem_write(self._page, state.page)


def _plain(values: Sequence[Value]) -> list[int]:
    """Return the numbers of which registers consist: two for an x87 register, one for any other."""
    return [part for value in values for part in (value if isinstance(value, tuple) else (value,))]


class UnicornMachine:
    """A VM with ``count`` vCPUs; see :class:`~migpool_plugins.vcpu.backend.Machine`."""

    name = "Unicorn"
    layout = tuple(entry for entry, _part in _PARTS)
    way_out = program.OUT_BY_HALT
    batch = 1 << 13

    def __init__(self, count: int) -> None:
        if not hasattr(unicorn.Uc, "reg_write_batch"):
            raise DeviceError(f"Unicorn {unicorn.__version__} is too old: install 2.1 or newer")
        try:
            self.vcpus = tuple(UnicornVcpu(index) for index in range(count))
        except unicorn.UcError as error:
            raise DeviceError(f"Unicorn cannot make an engine ({error})") from error

    def comparable(self, state: VcpuState) -> VcpuState:
        return state

    def checksum(self, state: VcpuState) -> int:
        (low,) = _LOW_HALF.unpack_from(state.registers["sse"])
        return int(low)

    def expel(self) -> None:
        for vcpu in self.vcpus:
            vcpu.engine.emu_stop()

    def close(self) -> None:
        for vcpu in self.vcpus:
            # An engine has no call to close it: its memory goes with the last reference.
            del vcpu.engine
        self.vcpus = ()
