"""The guest program: its bytes, where things lie in guest memory, and its registers before the first instruction.

The program itself and what each of its registers means is explained in ``guest/program.S``.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

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
