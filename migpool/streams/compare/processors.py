"""ID registers of Arm's processors: constants that say which model it is, and that a destination compares with its own.

In the section ``cpu`` they are among the fields ``cpreg_vmstate_indexes`` and ``cpreg_vmstate_values``, two arrays of
u64. An index is that of KVM's interface: bits 16 to 27 are 0x13 for a register of AArch64 (bits 14 and 15 op0, 11 to
13 op1, 7 to 10 CRn), or 0x0f for one of AArch32 (bits 11 to 14 CRn, 3 to 6 op1). Those with CRn 0 are the ID registers,
but for op1 2 and 4, which choose a cache or are a hypervisor's; and L2CTLR, which says how many processors there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

INDEXES: Final = "cpreg_vmstate_indexes"
VALUES: Final = "cpreg_vmstate_values"
_WORD: Final = Struct(">Q")
_AARCH64, _AARCH32 = 0x13, 0x0F
_WRITABLE: Final = frozenset({2, 4})
_L2CTLR: Final = frozenset({(_AARCH64, 0xCD82), (_AARCH32, 0x480A)})


def id_registers(indexes: bytes, values: bytes) -> Mapping[int, int]:
    """The ID registers by their indexes.

    Arguments:
        indexes, values: the two arrays.
    """
    found: dict[int, int] = {}
    for (index,), (value,) in zip(
        *(_WORD.iter_unpack(each[: len(each) & ~7]) for each in (indexes, values)), strict=False
    ):
        kind = index >> 16 & 0xFFF
        if kind == _AARCH64:
            is_id = index >> 14 & 0x3 == 3 and index >> 7 & 0xF == 0 and index >> 11 & 0x7 not in _WRITABLE
        else:
            is_id = kind == _AARCH32 and index >> 11 & 0xF == 0 and index >> 3 & 0xF not in _WRITABLE
        if is_id or (kind, index & 0xFFFF) in _L2CTLR:
            found[index] = value
    return found
