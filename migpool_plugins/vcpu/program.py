"""The guest program: its bytes, where things lie in guest memory, its first registers, and the proof of where it is.

The program itself and what each of its registers means is explained in ``guest/program.S``.

The proof runs nothing. One iteration maps ``(x, sum)`` to ``(a x + c, sum + a x + c)`` modulo 2**64, so x and the sum
after n iterations are geometric series, and from x 512 iterations earlier follows every number that must stand in the
page. A write that was lost, doubled or applied to a stale page changes at least one of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from struct import unpack
from typing import Final

from migpool.device import VerificationError

PAGE_SIZE: Final = 4096
SLOTS: Final = 512
"""Numbers of 64 bits in a vCPU's page; iteration n writes slot n mod 512."""

# Guest-physical layout. Everything fits the first 2 MiB, which one large page maps.
PAGE_TABLES: Final = 0x1000
CODE: Final = 0x4000
FIRST_PAGE: Final = 0x10000
MAX_VCPUS: Final = 256
DOORBELL: Final = 0x1FF000
"""Inside the mapped 2 MiB but behind the end of memory: a write here leaves the guest."""
OUT_BY_DOORBELL: Final = CODE + 0x40
OUT_BY_HALT: Final = CODE + 0x80
"""The two ways out of the guest after a batch; each backend picks one."""

MULTIPLIER: Final = 6364136223846793005
INCREMENT: Final = 1442695040888963407
"""Knuth's 64-bit generator (MMIX): full period, so that no number repeats within any run."""

RFLAGS_FIXED: Final = 2
"""The bit of RFLAGS that is always set; interrupts stay off."""
_MASK: Final = 2**64 - 1


def program_bytes() -> bytes:
    """Return the assembled guest program."""
    return (resources.files(__package__) / "guest" / "program.bin").read_bytes()


def page_address(index: int) -> int:
    """Return the guest-physical address of a vCPU's own page, behind those of the vCPUs before it."""
    return FIRST_PAGE + index * PAGE_SIZE


def start_value(seed: int, index: int) -> int:
    """Return x before the first iteration: the same at both ends, and another one for each vCPU."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:8], "little")


def start_registers(seed: int, index: int, batch: int, way_out: int) -> dict[str, int]:
    """Return the general registers with which a vCPU begins, by name; those not named are 0.

    Arguments:
        batch: iterations before the guest leaves.
        way_out: the address where it goes to leave.
    """
    return {
        "rax": start_value(seed, index),
        "rbx": MULTIPLIER,
        "rdi": page_address(index),
        "r8": batch,
        "r9": INCREMENT,
        "r10": batch,
        "r11": DOORBELL,
        "rbp": way_out,
        "rip": CODE,
        "rflags": RFLAGS_FIXED,
    }


@dataclass(frozen=True, slots=True)
class Guest:
    """What of a vCPU's state the guest program made.

    Arguments:
        index: of the vCPU.
        registers: the general registers, by name.
        checksum: the low half of xmm0.
        page: the vCPU's page, 4096 bytes.
    """

    index: int
    registers: Mapping[str, int]
    checksum: int
    page: bytes

    @property
    def iterations(self) -> int:
        """How many iterations the guest says it has done."""
        return self.registers["rcx"]


def after(start: int, iterations: int) -> tuple[int, int]:
    """Return x and the sum after so many iterations from ``start``, which is x before the first one."""
    less = MULTIPLIER - 1
    power = pow(MULTIPLIER, iterations, less * less << 64)  # a modulus that leaves 64 bits after both divisions
    ones = (power - 1) // less  # 1 + a + ... + a**(n-1), by which c counts in x
    sums = (MULTIPLIER * ones - iterations) // less  # the sum of that for 1 to n iterations
    x = power * start + ones * INCREMENT
    return x & _MASK, (MULTIPLIER * ones * start + sums * INCREMENT) & _MASK


def expected_page(start: int, iterations: int) -> list[int]:
    """Return the numbers that stand in the page after so many iterations, by slot."""
    page = [0] * SLOTS
    first = max(iterations - SLOTS, 0)
    x, _ = after(start, first)
    for number in range(first + 1, iterations + 1):
        x = (x * MULTIPLIER + INCREMENT) & _MASK
        page[number % SLOTS] = x
    return page


def prove(guest: Guest, seed: int, more_than: int) -> None:
    """Check everything that the guest program determines, at the end of a batch.

    Arguments:
        guest: what was found.
        seed: of the migration; with the vCPU's index it gives the start value, the same at both ends.
        more_than: iterations that had been done before; the guest must have gone on since.

    Raises:
        VerificationError: one line with the vCPU, the number of iterations, and the first thing that is not right.
    """
    n = guest.iterations
    start = start_value(seed, guest.index)
    where = f"vCPU {guest.index} after {n} iterations"
    if n <= more_than:
        raise VerificationError(f"{where}: it has not gone on, {more_than} had been done when its state was saved")
    x, checksum = after(start, n)
    batch = guest.registers["r8"]
    wanted = {"rax": x, "rbx": MULTIPLIER, "r9": INCREMENT, "rdi": page_address(guest.index), "r10": batch}
    for name, value in wanted.items():
        if guest.registers[name] != value:
            raise VerificationError(f"{where}: register {name} is {guest.registers[name]:#x}, not {value:#x}")
    if not batch or n % batch:
        raise VerificationError(f"{where}: that is no whole number of batches of {batch}")
    if guest.checksum != checksum:
        raise VerificationError(f"{where}: the checksum in xmm0 is {guest.checksum:#x}, not {checksum:#x}")
    found = unpack(f"<{SLOTS}Q", guest.page)
    for slot, value in enumerate(expected_page(start, n)):
        if found[slot] != value:
            raise VerificationError(f"{where}: slot {slot} of its page holds {found[slot]:#x}, not {value:#x}")
