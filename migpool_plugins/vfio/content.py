"""The bytes of a device's state: the same for one seed and device name at both ends, and incompressible.

One block of SHAKE-128 output is made from the seed. Block *n* of a device is that block with its bytes substituted by a
permutation of the 256 values that SHAKE-128 draws from the seed, the device's name and *n*. A substitution of random
bytes is random again, and leaves no repetition that a dictionary compressor could find; it costs half of what SHAKE-128
itself would. Nothing here depends on the Python version.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from typing import Final

from migpool_plugins.memory import Memory, shared_file

BLOCK: Final = 1 << 20
_PROBE: Final = 32

# ctypes.CDLL gives up the interpreter lock during the call: other devices go on while one is compared.
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


class BaseBlock:
    """The block from which the states of all devices of one process are made; itself made from the migration's seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._block = b""

    def key(self, *parts: object) -> bytes:
        """Return a name for something derived from the seed."""
        return "/".join(str(part) for part in ("migpool vfio", self._seed, *parts)).encode()

    def block(self) -> bytes:
        with self._lock:
            if not self._block:
                self._block = hashlib.shake_128(self.key("base")).digest(BLOCK)
            return self._block


class StateContent:
    """What a device's state and config must be.

    Arguments:
        base: the process's base block.
        idstr: the device's name.
        size: bytes of state.
        config_size: bytes of config content.
        shared: whether a descriptor of the state can be given to another process.

    Attributes:
        memory: the state.
        digest: SHA-256 of the state.
        config: the config's content.
    """

    def __init__(self, base: BaseBlock, idstr: str, size: int, config_size: int, shared: bool = False) -> None:
        self.size = size
        self.memory = Memory(size, resident=True, descriptor=shared_file(size) if shared else -1)
        block = base.block()
        for number, offset in enumerate(range(0, size, BLOCK)):
            length = min(BLOCK, size - offset)
            draws = hashlib.shake_128(base.key(idstr, number)).digest(1024)
            keys = [draws[i : i + 4] for i in range(0, 1024, 4)]
            substitution = bytes(sorted(range(256), key=keys.__getitem__))
            self.memory.view[offset : offset + length] = block[:length].translate(substitution)
        self.digest = hashlib.sha256(self.memory.view).digest()
        self.config = hashlib.shake_128(base.key(idstr, "config")).digest(config_size)

    def first_difference(self, other: Memory, offset: int, length: int) -> int | None:
        """Return the offset of the first byte that is not the state's in a part of ``other``; ``None`` if all are."""
        ours, theirs = self.memory.address + offset, other.address + offset
        if _memcmp(ours, theirs, length) == 0:
            return None
        same, different = 0, length
        while different - same > 1:
            middle = (same + different) // 2
            if _memcmp(ours + same, theirs + same, middle - same) == 0:
                same = middle
            else:
                different = middle
        return offset + same

    def origin(self, data: memoryview) -> int | None:
        """Return where in the state ``data`` begins, judged by its first bytes; ``None`` if nowhere."""
        if len(data) < _PROBE:
            return None
        found = self.memory.find(bytes(data[:_PROBE]))
        return found if found >= 0 else None
