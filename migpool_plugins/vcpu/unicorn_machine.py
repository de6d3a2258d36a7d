"""A VM of Unicorn, the CPU emulator: one engine for each vCPU, for hosts without KVM.

The engine runs flat 64-bit code with full privilege and without page tables, so the guest leaves by a halt. Of the
machine only what the guest can change migrates, in the same sets as KVM's: the general registers; of the special
registers the FS and GS bases (the others are 0: there are no descriptor tables and no paging); the x87 and SSE
registers (the addresses of the last x87 instruction are 0); and the page. None of the optional sets is there, and no
board. ``emu_start`` is a foreign call that releases the interpreter's lock, so vCPUs run side by side.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from migpool.device import DeviceError
from migpool_plugins.vcpu import program
from migpool_plugins.vcpu.cpu_model import CpuChoice
from migpool_plugins.vcpu.kvm_part import Parts
from migpool_plugins.vcpu.state import FPU, PAGE, REGS, SREGS, RegisterFormat, Sets

# Imported by name: the package is optional, and its annotations differ between its versions.
unicorn = importlib.import_module("unicorn")
x86_const = importlib.import_module("unicorn.x86_const")


def _register(name: str) -> int:
    """Unicorn's number of a register."""
    number: int = getattr(x86_const, f"UC_X86_REG_{name.upper()}")
    return number


_GENERAL: Final = tuple(_register(name) for name in REGS.fields)
_BASES: Final = (_register("fs_base"), _register("gs_base"))
_CONTROLS: Final = tuple(_register(name) for name in ("fpcw", "fpsw", "fptag", "mxcsr"))
# The physical x87 registers: ST0 to ST7 would name them relative to the stack's top, which travels in FPSW.
_X87: Final = tuple(range(x86_const.UC_X86_REG_FP0, x86_const.UC_X86_REG_FP0 + 8))
_SSE: Final = tuple(range(x86_const.UC_X86_REG_XMM0, x86_const.UC_X86_REG_XMM0 + 16))
_ALL: Final = _GENERAL + _BASES + _CONTROLS + _X87 + _SSE

_PARTS: Final = (slice(0, 18), slice(18, 20), slice(20, 24), slice(24, 32), slice(32, 48))
"""Where each kind of register stands in the batch that is read at once."""
_MANTISSA: Final = (1 << 64) - 1
_NEVER_REACHED: Final = program.CODE + program.PAGE_SIZE


Value: TypeAlias = int | tuple[int, int]
"""A register: a number, or for an x87 register its mantissa (64 bits) and its sign and exponent (16 bits)."""


class UnicornVcpu:
    """One vCPU of a :class:`UnicornMachine`; see :class:`~migpool_plugins.vcpu.backend.VirtualCpu`."""

    layout: Sequence[RegisterFormat] = (REGS, SREGS, FPU, PAGE)

    def __init__(self, index: int) -> None:
        self.index = index
        self.blank: Sets = {form.name: bytes(form.struct.size) for form in self.layout}
        self._page = program.page_address(index)
        self._watching: int | None = None
        self.halts_at = program.OUT_BY_HALT
        self._engine: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._engine.mem_map(program.CODE, program.PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._engine.mem_write(program.CODE, program.program_bytes())
        self._engine.mem_map(self._page, program.PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)

    def boot(self, registers: Mapping[str, int]) -> None:
        for name, value in registers.items():
            self.put(name, value)

    def run_batch(self) -> None:
        try:
            self._engine.emu_start(self._engine.reg_read(x86_const.UC_X86_REG_RIP), _NEVER_REACHED)
        except unicorn.UcError as error:
            raise DeviceError(f"the guest left by an error of Unicorn ({error}), not by a halt") from error
        address = self._engine.reg_read(x86_const.UC_X86_REG_RIP)
        if address != self.halts_at + 1:
            raise DeviceError(f"the guest was stopped at {address:#x}, not behind its halt")

    def put(self, name: str, value: int) -> None:
        self._engine.reg_write(_register(name), value)

    def map_memory(self, address: int, size: int, host_address: int) -> None:
        """Let the guest see memory of this process, which must stay mapped until the machine is closed."""
        self._engine.mem_map_ptr(address, size, unicorn.UC_PROT_ALL, host_address)

    def watch_writes(self, hook: Callable[[int], None], begin: int, end: int) -> None:
        """Call ``hook`` with the address before each write to addresses from ``begin`` to ``end``. The vCPU stands."""

        def called(_engine: object, _access: int, address: int, _size: int, _value: int, _data: object) -> None:
            hook(address)

        self._watching = self._engine.hook_add(unicorn.UC_HOOK_MEM_WRITE, called, None, begin, end)

    def unwatch_writes(self) -> None:
        """No more. The vCPU stands. Harmless when repeated."""
        if self._watching is not None:
            self._engine.hook_del(self._watching)
            self._watching = None

    def save(self) -> dict[str, bytes]:
        values = self._engine.reg_read_batch(_ALL)
        general, bases, controls, x87, sse = (values[part] for part in _PARTS)
        fcw, fsw, ftw, mxcsr = _numbers(controls)
        top = fsw >> 11 & 7
        # FXSAVE names the registers from the stack's top, but tags them as they lie.
        stack = [x87[(top + n) % 8] for n in range(8)]
        fpu = FPU.struct.pack(
            *(fcw, fsw, _short_tags(ftw), 0, 0, 0, mxcsr),
            *(part for pair in stack if isinstance(pair, tuple) for part in pair),
            *(half for value in _numbers(sse) for half in (value & _MANTISSA, value >> 64)),
        )
        fs_base, gs_base = _numbers(bases)
        special = {**dict.fromkeys(SREGS.fields, 0), "fs_base": fs_base, "gs_base": gs_base}
        return {
            "regs": REGS.struct.pack(*_numbers(general)),
            "sregs": SREGS.struct.pack(*special.values()),
            "fpu": fpu,
            "page": bytes(self._engine.mem_read(self._page, program.PAGE_SIZE)),
        }

    def load(self, sets: Sets) -> Sequence[str]:
        special = SREGS.values(sets["sregs"])
        fpu = FPU.values(sets["fpu"])
        top = fpu["fsw"] >> 11 & 7
        stack = [(fpu[f"st{n}_mantissa"], fpu[f"st{n}_exponent"]) for n in range(8)]
        values: list[Value] = [
            *REGS.struct.unpack(sets["regs"]),
            *(special["fs_base"], special["gs_base"]),
            *(fpu["fcw"], fpu["fsw"], _long_tags(fpu["ftw"]), fpu["mxcsr"]),
            *(stack[(n - top) % 8] for n in range(8)),
            *(fpu[f"xmm{n}_low"] | fpu[f"xmm{n}_high"] << 64 for n in range(16)),
        ]
        try:
            # One by one: in releases up to 2.1.1 of Unicorn the call that takes all of them does nothing.
            for register, value in zip(_ALL, values, strict=True):
                self._engine.reg_write(register, value)
        except unicorn.UcError as error:
            raise DeviceError(f"Unicorn refused a register ({error}): the state is damaged") from error
        self._engine.mem_write(self._page, sets["page"])
        return ()

    def comparable(self, sets: Sets) -> Sets:
        return sets


def _numbers(values: Sequence[Value]) -> list[int]:
    """Return the values of registers that are plain numbers."""
    return [value for value in values if isinstance(value, int)]


def _short_tags(tags: int) -> int:
    """Return FXSAVE's tags, one bit for each register that is not empty, from two bits each, of which 3 means empty."""
    return sum(1 << n for n in range(8) if tags >> 2 * n & 3 != 3)


def _long_tags(tags: int) -> int:
    return sum(3 << 2 * n for n in range(8) if not tags >> n & 1)


class UnicornMachine:
    """A VM with ``count`` vCPUs; see :class:`~migpool_plugins.vcpu.backend.VcpuMachine`."""

    name = "Unicorn"
    kind = "Unicorn"
    lacks: Sequence[str] = ()
    board = Parts(-1, ())
    way_out = program.OUT_BY_HALT
    batch = 1 << 13

    def __init__(self, count: int, *, cpu: CpuChoice = "small") -> None:
        assert cpu == "small"
        if not hasattr(unicorn.Uc, "reg_read_batch"):
            raise DeviceError(f"Unicorn {unicorn.__version__} is too old: install 2.1 or newer")
        try:
            self.vcpus = tuple(UnicornVcpu(index) for index in range(count))
        except unicorn.UcError as error:
            raise DeviceError(f"Unicorn cannot make an engine ({error})") from error

    def expel(self) -> None:
        for vcpu in self.vcpus:
            vcpu._engine.emu_stop()

    def close(self) -> None:
        for vcpu in self.vcpus:
            # An engine has no call to close it: its memory goes with the last reference.
            del vcpu._engine
        self.vcpus = ()
