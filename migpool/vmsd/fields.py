"""The kinds of fields that a :class:`~migpool.vmsd.description.Description` is made of.

What they have in common:

* ``name``: the field's name in the stream's JSON, and that of the attribute; ``attribute`` sets another, perhaps a
  dotted path.
* ``length``: makes it an array (a list in Python): a number, or the name of the attribute that holds the number. If
  that is a field too it must come earlier. A function of the object will also do.
* ``since``: the version of the description in which the field appeared; it is there if the section's version is that
  or newer. ``when`` is called with the object and the section's version and decides alone, ``since`` or not.

Whole numbers are big-endian. Where JSON names are given below they are those of QEMU's streams.
"""

from __future__ import annotations

from migpool.vmsd.plain_fields import (
    bitmap,
    boolean,
    buffer,
    double,
    equal,
    i8,
    i16,
    i32,
    i64,
    not_above,
    timer,
    u8,
    u16,
    u32,
    u64,
    unused,
    validate,
)
from migpool.vmsd.structured_fields import (
    linked_list,
    pointers,
    queue,
    struct,
    temporary,
    tree,
    vstruct,
)

__all__ = [
    "bitmap",
    "boolean",
    "buffer",
    "double",
    "equal",
    "i8",
    "i16",
    "i32",
    "i64",
    "linked_list",
    "not_above",
    "pointers",
    "queue",
    "struct",
    "temporary",
    "timer",
    "tree",
    "u8",
    "u16",
    "u32",
    "u64",
    "unused",
    "validate",
    "vstruct",
]
