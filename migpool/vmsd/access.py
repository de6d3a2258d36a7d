"""Where the values live: in the attributes of an object, or in a record made from a stream's own description.

A record is a plain ``dict`` from field name to value; nested structures are records, and a subsection that is there
stands in it under its name. With objects a subsection is about the same object as its parent.
"""

# ruff: noqa: ARG002 - both ways share one signature, and each needs less than all of it
from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from types import FunctionType, MethodType
from typing import Any, Final, TypeAlias, cast

from migpool.vmsd.codec import Fault

Record: TypeAlias = dict[str, object]
"""Values by field name, as decoded by a description that came with a stream."""


class Access:
    """How a description reaches the values of the thing it describes: here, an object's attributes.

    A dotted name walks from object to object.
    """

    _getter = staticmethod(cast("Callable[..., Callable[[object], Any]]", attrgetter))

    def get(self, holder: object, name: str) -> object:
        """The value under ``name``; raises :class:`Fault` if there is none."""
        try:
            return attrgetter(name)(holder)
        except AttributeError:
            raise Fault(f"{type(holder).__name__} has no attribute {name}") from None

    def current(self, holder: object, name: str) -> object:
        """The value under ``name`` before it is loaded, or ``None``."""
        try:
            return attrgetter(name)(holder)
        except AttributeError:
            return None

    def put(self, holder: object, name: str, value: object) -> None:
        """Set the value under ``name``."""
        if isinstance(holder, Overlay):
            holder.put(name.split("."), value)
            return
        path, _, last = name.rpartition(".")
        try:
            setattr(attrgetter(path)(holder) if path else holder, last, value)
        except AttributeError as error:
            raise Fault(f"{type(holder).__name__} cannot take a value for {name}: {error}") from None

    def gather(self, names: Sequence[str]) -> Callable[[object], tuple[object, ...]]:
        """A function that takes all values of ``names`` out of a holder, or fails with the error of a missing one."""
        get = self._getter(*names)
        return get if len(names) > 1 else lambda holder: (get(holder),)

    def fill(self, holder: object, names: Sequence[str], values: Sequence[object]) -> None:
        """Set many values."""
        for name, value in zip(names, values, strict=True):
            try:
                self.put(holder, name, value)
            except Fault as fault:
                raise fault.under(name) from None

    def present(self, holder: object, subsections: Sequence[str]) -> Sequence[str]:
        """Which subsections the holder itself says are there, in their order."""
        return subsections

    def inner(self, holder: object, subsection: str) -> object:
        """The thing that a subsection which is there describes."""
        return holder

    def open(self, holder: object, subsection: str) -> object:
        """The thing that a subsection which has come loads into."""
        return holder


class RecordAccess(Access):
    """Values in a :data:`Record`."""

    _getter = staticmethod(cast("Callable[..., Callable[[object], Any]]", itemgetter))

    def get(self, holder: object, name: str) -> object:
        try:
            return cast("Record", holder)[name]
        except KeyError:
            raise Fault("the record has no value for it") from None
        except TypeError:
            raise Fault(f"expected a record, there is {holder!r:.60}") from None

    def current(self, holder: object, name: str) -> object:
        return None

    def put(self, holder: object, name: str, value: object) -> None:
        cast("Record", holder)[name] = value

    def fill(self, holder: object, names: Sequence[str], values: Sequence[object]) -> None:
        cast("Record", holder).update(zip(names, values, strict=True))

    def present(self, holder: object, subsections: Sequence[str]) -> Sequence[str]:
        known = frozenset(subsections)
        return [name for name in cast("Record", holder) if name in known]

    def inner(self, holder: object, subsection: str) -> object:
        return cast("Record", holder)[subsection]

    def open(self, holder: object, subsection: str) -> object:
        inner: Record = {}
        cast("Record", holder)[subsection] = inner
        return inner


class Overlay:
    """Looks like an object, but keeps what is written to it to itself.

    A payload must be measured before it is loaded, and how long it is can depend on values in it and in the object.
    So measuring loads into an overlay: conditions and counts see the values that have come, the object sees nothing.
    Methods and properties of the object's class work on the overlay; hooks are not called.
    """

    __slots__ = ("_base", "_own")

    def __init__(self, base: object) -> None:
        object.__setattr__(self, "_base", base)
        object.__setattr__(self, "_own", {})

    def __getattr__(self, name: str) -> object:
        own = cast("Record", object.__getattribute__(self, "_own"))
        if name in own:
            return own[name]
        base: object = object.__getattribute__(self, "_base")
        static = inspect.getattr_static(type(base), name, None)
        if isinstance(static, FunctionType):
            return MethodType(static, self)
        if isinstance(static, property) and static.fget is not None:
            return static.fget(self)
        value: object = getattr(base, name)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        self.put([name], value)

    def put(self, path: Sequence[str], value: object) -> None:
        """Keep ``value`` for the attribute at the end of ``path``."""
        own = cast("Record", object.__getattribute__(self, "_own"))
        first, *rest = path
        if not rest:
            own[first] = value
            return
        inner = own.get(first)
        if not isinstance(inner, Overlay):
            inner = Overlay(inner if first in own else getattr(self, first))
            own[first] = inner
        inner.put(rest, value)


RECORDS: Final = RecordAccess()
ATTRIBUTES: Final = Access()
