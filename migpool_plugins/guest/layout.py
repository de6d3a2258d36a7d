"""Where things lie in the guest's memory, and what of it both ends know beforehand.

::

    0          the program (program/program.S)
    4096 * n   the control page of vCPU n - 1, until CONTROL_END
    DATA       a region for each vCPU, as many pages as a power of two allows
    then       pages that nobody writes: the first half holds numbers, the other half zeros

All offsets are in the memory, which the guest sees from ``ADDRESS`` on. It begins as if the guest had run before: every
page of the regions has been written, and the vCPUs go on from there.

So it can be proved that a guest lost no write. The vCPU stands. Its step number says which step must have written each
page of its region last, and every word of a page tells which step wrote it: a lost write, or a page from an earlier
round, is seen wherever it is. Pages that were wrong when the guest came upon them and wrote them again are seen in the
checksum.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import astuple, dataclass
from importlib import resources
from typing import Final

import numpy as np

from migpool.device import VerificationError
from migpool.units import count_of
from migpool_plugins.guest.pattern import FACTOR, Pattern, Words, contents, differing
from migpool_plugins.vcpu import program as small
from migpool_plugins.vcpu.state import REGS, Sets, checksum

ADDRESS: Final = 0x200000
"""The guest-physical address of the memory: behind what the VM keeps for itself."""
BLOCK: Final = "pc.ram"
PAGE_SIZE: Final = 4096
DATA: Final = 1 << 20
MAX_VCPUS: Final = 64
OUT_BY_DOORBELL: Final = 0x100
OUT_BY_HALT: Final = 0x140
NEVER_WRITTEN: Final = 1 << 63
"""Added to the page's number in pages that nobody writes."""

CONTROL: Final = struct.Struct("<9Q")
_BOTH_ENDS: Final = 2 + 511 * FACTOR
"""What the first and the last word of a page add to the checksum, for each of the step's number."""
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Control:
    """The words of a control page, in their order; the top of ``program.S`` says what each is."""

    region: int = 0
    clock_offset: int = 0
    host: int = 0
    clock: int = 0
    step_at_clock: int = 0
    longest_gap: int = 0
    step_at_gap: int = 0
    went_back: int = 0
    hot_mask: int = 0

    @classmethod
    def read(cls, memory: memoryview, at: int) -> Control:
        """Return the control page that begins at an offset of the memory."""
        return cls(*CONTROL.unpack_from(memory, at))

    def write(self, memory: memoryview, at: int) -> None:
        """Write the control page that begins at an offset of the memory."""
        CONTROL.pack_into(memory, at, *(word % (1 << 64) for word in astuple(self)))


def words_of(memory: memoryview) -> Words:
    """Return a part of the memory as words, a row for each page."""
    return np.frombuffer(memory, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8)


def program_bytes() -> bytes:
    """Return the assembled guest program."""
    return (resources.files(__package__) / "program" / "program.bin").read_bytes()


@dataclass(frozen=True, slots=True)
class GuestLayout:
    """The memory of one guest.

    Arguments:
        size: in bytes, whole MiB.
        vcpus: how many there are.
        kind: of the pattern; :class:`~migpool_plugins.guest.pattern.Pattern`.
        hot_pages: how many pages of each region are hot, a power of two; for the kind "hot".
        seed: of the migration.
    """

    size: int
    vcpus: int
    kind: str
    hot_pages: int
    seed: int

    @property
    def region_pages(self) -> int:
        """Pages of each vCPU's region."""
        return 1 << (((self.size - DATA) // self.vcpus // PAGE_SIZE).bit_length() - 1)

    def region(self, index: int) -> slice:
        begin = DATA + index * self.region_pages * PAGE_SIZE
        return slice(begin, begin + self.region_pages * PAGE_SIZE)

    def control(self, index: int) -> int:
        return (index + 1) * PAGE_SIZE

    @property
    def untouched(self) -> tuple[slice, slice]:
        """The pages that nobody writes: those with numbers, those with zeros."""
        begin = self.region(self.vcpus).start
        half = begin + (self.size - begin) // (2 * PAGE_SIZE) * PAGE_SIZE
        return slice(begin, half), slice(half, self.size)

    def pattern(self, index: int) -> Pattern:
        """In which order a vCPU writes its pages."""
        number = hashlib.sha256(f"{self.seed}:{index}".encode()).digest()[:8]
        scatter = self.kind != "sequential"
        return Pattern(
            self.region_pages,
            min(self.hot_pages, self.region_pages) if self.kind == "hot" else 0,
            (int.from_bytes(number, "little") | 1) if scatter else 1,
            scatter,
        )

    def first_step(self, index: int) -> int:
        """How many steps a vCPU has done when it begins: enough that every page of its region has been written."""
        return self.region_pages * self.pattern(index).period

    def fill(self, memory: memoryview, clock_offset: int, host: int) -> None:
        """Write what is there in the beginning, the clock's offset and the number of its host among it."""
        code = program_bytes()
        memory[: len(code)] = code
        for index in range(self.vcpus):
            pattern = self.pattern(index)
            contents(pattern.last_written(self.first_step(index)), into=words_of(memory[self.region(index)]))
            hot = pattern.hot_pages - 1 if pattern.hot_pages else 0
            control = Control(ADDRESS + self.region(index).start, clock_offset, host, hot_mask=hot)
            control.write(memory, self.control(index))
        contents(self.numbers(), into=words_of(memory[self.untouched[0]]))

    def numbers(self) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        """For each page of the untouched first half, the step that its words name, as if that step had written it."""
        place = self.untouched[0]
        return np.arange(place.start // PAGE_SIZE, place.stop // PAGE_SIZE, dtype=np.uint64) | np.uint64(NEVER_WRITTEN)

    def start_registers(self, index: int, batch: int, way_out: int) -> dict[str, int]:
        """The general registers with which a vCPU begins, by name; those not named are 0.

        Arguments:
            batch: steps before the guest leaves.
            way_out: ``OUT_BY_DOORBELL`` or ``OUT_BY_HALT``.
        """
        pattern = self.pattern(index)
        return {
            "rcx": self.first_step(index),
            "rdi": ADDRESS + self.control(index),
            "r15": self.region_pages,
            "r8": batch,
            "r9": FACTOR,
            "r10": batch,
            "r11": small.DOORBELL,
            "rbp": ADDRESS + way_out,
            "rbx": pattern.multiplier,
            "r12": pattern.period - 1,
            "r13": self.region_pages - 1,
            "r14": (1 << 64) - 1 if pattern.scatter else 0,
            "rip": ADDRESS,
            "rflags": small.RFLAGS_FIXED,
        }

    def prove(self, memory: memoryview, index: int, state: Sets, more_than: int) -> None:
        """Check all that a vCPU has written.

        Arguments:
            memory: all of it.
            index: of the vCPU, which stands.
            state: of the vCPU.
            more_than: the steps that had been done when its state was saved; it must have gone on since.

        Raises:
            VerificationError: one line with the vCPU, its step, and the first thing that is not right.
        """
        step, found = steps_in(state), checksum(state)
        where = f"vCPU {index} after {count_of(step, 'step')}"
        if step <= more_than:
            raise VerificationError(f"{where}: it has not gone on, {more_than} had been done when its state was saved")
        pattern = self.pattern(index)
        done = pattern.overwritten(step) - pattern.overwritten(self.first_step(index))
        if found != done * _BOTH_ENDS & _MASK:
            raise VerificationError(f"{where}: the checksum of what it has overwritten is {found:#x}, not right")
        place = self.region(index)
        last = pattern.last_written(step)
        wrong = differing(last, words_of(memory[place]))
        if wrong is not None:
            (holds,) = struct.unpack_from("<Q", memory, place.start + wrong * PAGE_SIZE)
            raise VerificationError(
                f"{where}: page {wrong} of its region was written last by step {int(last[wrong])}, "
                f"but holds that of step {holds}, or of several"
            )
        control = Control.read(memory, self.control(index))
        if control.went_back:
            raise VerificationError(f"{where}: its clock went back {count_of(control.went_back, 'time')}")
        if not more_than <= control.step_at_clock <= step:
            raise VerificationError(f"{where}: its clock was read last at step {control.step_at_clock}")

    def prove_untouched(self, memory: memoryview) -> None:
        """Check the pages that nobody writes; a :class:`VerificationError` if one holds something else."""
        numbers, zeros = self.untouched
        wrong = differing(self.numbers(), words_of(memory[numbers]))
        if wrong is not None:
            page = numbers.start // PAGE_SIZE + wrong
            raise VerificationError(f"page {page} of the memory, which nobody writes, is not as it was")
        if words_of(memory[zeros]).any():
            raise VerificationError("a page of zeros, which nobody writes, holds something")


def steps_in(state: Sets) -> int:
    """How many steps a vCPU has done."""
    return REGS.values(state["regs"])["rcx"]
