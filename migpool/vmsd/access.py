"""Where the values live: in the attributes of an object, or in a record made from a stream's own description.

A record is a plain ``dict`` from field name to value; nested structures are records, and a subsection that is there
stands in it under its name. With objects a subsection is about the same object as its parent.
"""

# ruff: noqa: ARG002 - both ways share one signature, and each needs less than all of it
from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias, cast

from migpool.vmsd.codec import Fault, told

Record: TypeAlias = dict[str, object]
"""Values by field name, as decoded by a description that came with a stream."""


class Access:
    """How a description reaches the values of the thing it describes: here, an object's attributes.

    A dotted name walks from object to object.
    """

    getter = staticmethod(cast("Callable[..., Callable[[object], Any]]", attrgetter))
    """A function that takes one value or several out of a holder, by their names."""

    def get(self, holder: object, name: str) -> object:
        """The value under ``name``; raises :class:`Fault` if there is none."""
        try:
            return attrgetter(name)(holder)
        except AttributeError:
            raise Fault(f"{type(holder).__name__} has no attribute {name}") from None
        except Exception as error:
            raise told(error, "get") from error

    def current(self, holder: object, name: str) -> object:
        """The value under ``name`` before it is loaded, or ``None``."""
        try:
            return attrgetter(name)(holder)
        except AttributeError:
            return None

    def put(self, holder: object, name: str, value: object) -> None:
        """Set the value under ``name``."""
        path, _, last = name.rpartition(".")
        try:
            setattr(attrgetter(path)(holder) if path else holder, last, value)
        except AttributeError as error:
            raise Fault(f"{type(holder).__name__} cannot take a value for {name}: {error}") from None
        except Exception as error:
            raise told(error, "set") from error

    def gather(self, names: Sequence[str]) -> Callable[[object], tuple[object, ...]]:
        """A function that takes all values of ``names`` out of a holder, or fails with the error of a missing one."""
        get = self.getter(*names)
        return get if len(names) > 1 else lambda holder: (get(holder),)

    def fill(self, holder: object, names: Sequence[str], values: Sequence[object]) -> None:
        """Set many values."""
        for name, value in zip(names, values, strict=True):
            self.put(holder, name, value)

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

    getter = staticmethod(cast("Callable[..., Callable[[object], Any]]", itemgetter))

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


RECORDS: Final = RecordAccess()
ATTRIBUTES: Final = Access()
