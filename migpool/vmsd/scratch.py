"""A copy of the object that a payload is for, to measure the payload with.

How long a payload is can depend on values in it, on the object, and on what hooks make of both. So it is loaded into a
copy: conditions, counts and hooks find there what they will find when it is loaded into the object itself.
"""

from __future__ import annotations

import io
import pickle
from types import BuiltinFunctionType, FunctionType, ModuleType

from migpool.vmsd.codec import Fault

_AS_THEY_ARE = (type, FunctionType, BuiltinFunctionType, ModuleType)
_PLAIN = frozenset((int, float, bool, str, bytes, bytearray, type(None), list, dict, tuple, set, frozenset))


class _Copier(pickle.Pickler):
    """Writes an object and all that can be reached from it, but for what cannot be copied: that stays shared.

    Among these are locks, sockets, maps of memory, what gives something back when it goes away (``__del__``), and bare
    objects, which are known by their identity alone.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.shared: list[object] = []

    def persistent_id(self, obj: object) -> int | None:
        """The number of a shared object; ``None`` for one that is copied."""
        kind = type(obj)
        if kind in _PLAIN:
            return None
        if not (kind is object or isinstance(obj, _AS_THEY_ARE) or hasattr(kind, "__del__")):
            try:
                obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
            except Exception:  # noqa: BLE001 -- whatever it says, it cannot be copied
                pass
            else:
                return None
        self.shared.append(obj)
        return len(self.shared) - 1


class _Maker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: list[object]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, pid: int) -> object:
        return self._shared[pid]


def scratch(state: object) -> object:
    """A copy of ``state`` that hooks may be called on: nothing that they change in it changes ``state``.

    Raises:
        Fault: it cannot be copied, so the payload cannot be measured.
    """
    file = io.BytesIO()
    copier = _Copier(file)
    try:
        copier.dump(state)
        file.seek(0)
        copied = _Maker(file, copier.shared).load()
    except Exception as error:
        raise Fault(f"{_UNMEASURED}: {type(error).__name__}: {error}") from error
    if copied is state:
        raise Fault(f"{_UNMEASURED}: it has __del__, or does not let itself be copied")
    return copied


_UNMEASURED = (
    "the length cannot be measured, as it depends on the object, of which no copy can be made (give it __reduce__, or "
    "send the config over the multifd channels, where it has a length)"
)
