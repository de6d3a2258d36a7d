"""Proves that a guest is where its number of iterations says it must be, without running anything.

One iteration maps ``(x, sum)`` to ``(a x + c, sum + a x + c)`` modulo 2**64. Such maps compose into maps of the same
form, so the map of n iterations is found by squaring, in about log2(n) steps. From it follow x and the sum after n
iterations exactly, and, from x 512 iterations earlier, every number that must stand in the page. A write that was
lost, doubled or applied to a stale page changes at least one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import unpack
from typing import Final

from migpool.device import VerificationError
from migpool_plugins.vcpu.program import INCREMENT, MULTIPLIER, SLOTS, page_address, start_value

_MASK: Final = 2**64 - 1


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


@dataclass(frozen=True, slots=True)
class _Steps:
    """A number of iterations as one map: ``x -> scale x + shift`` and ``sum -> sum + weight x + extra``."""

    scale: int = 1
    shift: int = 0
    weight: int = 0
    extra: int = 0

    def then(self, later: _Steps) -> _Steps:
        return _Steps(
            later.scale * self.scale & _MASK,
            (later.scale * self.shift + later.shift) & _MASK,
            (self.weight + later.weight * self.scale) & _MASK,
            (self.extra + later.weight * self.shift + later.extra) & _MASK,
        )


def after(start: int, iterations: int) -> tuple[int, int]:
    """Return x and the sum after so many iterations from ``start``, which is x before the first one."""
    total, power = _Steps(), _Steps(MULTIPLIER, INCREMENT, MULTIPLIER, INCREMENT)
    while iterations:
        if iterations & 1:
            total = total.then(power)
        power = power.then(power)
        iterations >>= 1
    return (total.scale * start + total.shift) & _MASK, (total.weight * start + total.extra) & _MASK


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
