"""Proves that a guest lost no write: what its registers say must be what its memory holds, page by page.

The vCPU stands. Its step number says which step must have written each page of its region last, and every word of a
page tells which step wrote it: a lost write, or a page from an earlier round, is seen wherever it is. Pages that were
wrong when the guest came upon them and wrote them again are seen in the checksum.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack_from
from typing import Final

from migpool.device import VerificationError
from migpool_plugins.guest.layout import FACTOR, PAGE_SIZE, Control, GuestLayout, words_of
from migpool_plugins.guest.pattern import differing

_MASK: Final = (1 << 64) - 1
_BOTH_ENDS: Final = 2 + 511 * FACTOR
"""What the first and the last word of a page add to the checksum, for each of the step's number."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a vCPU's registers say: how many steps it has done, and the low half of xmm0."""

    index: int
    step: int
    checksum: int


def prove_vcpu(layout: GuestLayout, memory: memoryview, found: Standing, more_than: int) -> None:
    """Check all that a vCPU has written.

    Arguments:
        layout: of the memory.
        memory: all of it.
        found: the vCPU's registers.
        more_than: the steps that had been done when its state was saved; it must have gone on since.

    Raises:
        VerificationError: one line with the vCPU, its step, and the first thing that is not right.
    """
    where = f"vCPU {found.index} after {found.step} steps"
    if found.step <= more_than:
        raise VerificationError(f"{where}: it has not gone on, {more_than} had been done when its state was saved")
    pattern = layout.pattern(found.index)
    done = pattern.overwritten(found.step) - pattern.overwritten(layout.first_step(found.index))
    if found.checksum != done * _BOTH_ENDS & _MASK:
        raise VerificationError(f"{where}: the checksum of what it has overwritten is {found.checksum:#x}, not right")
    place = layout.region(found.index)
    last = pattern.last_written(found.step)
    wrong = differing(last, FACTOR, words_of(memory[place]))
    if wrong is not None:
        (holds,) = unpack_from("<Q", memory, place.start + wrong * PAGE_SIZE)
        raise VerificationError(
            f"{where}: page {wrong} of its region was written last by step {int(last[wrong])}, "
            f"but holds that of step {holds}, or of several"
        )
    control = Control.read(memory, layout.control(found.index))
    if control.went_back:
        raise VerificationError(f"{where}: its clock went back {control.went_back} times")
    if not more_than <= control.step_at_clock <= found.step:
        raise VerificationError(f"{where}: its clock was read last at step {control.step_at_clock}")


def prove_untouched(layout: GuestLayout, memory: memoryview) -> None:
    """Check the pages that nobody writes; a :class:`VerificationError` if one holds something else."""
    numbers, zeros = layout.untouched
    words = words_of(memory)
    first, last = numbers.start // PAGE_SIZE, numbers.stop // PAGE_SIZE
    wrong = differing(layout.numbers(), FACTOR, words[first:last])
    if wrong is not None:
        raise VerificationError(f"page {first + wrong} of the memory, which nobody writes, is not as it was")
    if words[zeros.start // PAGE_SIZE :].any():
        raise VerificationError("a page of zeros, which nobody writes, holds something")
