"""What an author declares: where it stands, and whether it is of the right type.

Everything wrong in a definition is told when it is made, with the file and line of the declaration.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TypedDict

from migpool.errors import DescriptionError
from migpool.vmsd.arrays import Array, Length, Part
from migpool.vmsd.codec import Codec, one_line
from migpool.vmsd.steps import Condition, Field
from migpool.vmsd.structure import Nested, Structure


class Placing(TypedDict, total=False):
    """What a declaration of any kind may say of its place; :mod:`migpool.vmsd.fields` says what each means."""

    since: int
    when: Condition | None
    attribute: str | None


class Declaration:
    """One declaration: a field, or a description.

    Arguments:
        what: what is declared, with its name.
        name: the name, which must be a string.
        depth: how many calls lie between here and the line of the author.

    Attributes:
        line: where that is, ``file:line``.
    """

    __slots__ = ("_name", "_what", "line")

    def __init__(self, what: str, name: str, depth: int = 2) -> None:
        frame = sys._getframe(depth)
        self.line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self._what = what
        self.expect("name", name, str, "a string")
        self._what = f"{what} {name}"
        self._name = name

    def wrong(self, message: str) -> DescriptionError:
        """The error about this declaration."""
        return DescriptionError(one_line(f"{self.line}: {self._what}: {message}"))

    def expect(self, argument: str, value: object, kinds: type | tuple[type, ...], accepts: str) -> None:
        """Refuse an argument of a wrong type; a truth value is no number.

        Arguments:
            argument: its name.
            value: what was given.
            kinds: the types that it may have.
            accepts: these in words.
        """
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.wrong(f"expected {accepts} as {argument}, it is {value!r:.60}")

    def whole(self, argument: str, value: object) -> None:
        """Refuse what is no whole number from 0 on."""
        self.expect(argument, value, int, "a whole number")
        assert isinstance(value, int)
        if value < 0:
            raise self.wrong(f"its {argument} is {value}, not 0 or more")

    def truth(self, argument: str, value: object) -> None:
        """Refuse what is not True or False."""
        if not isinstance(value, bool):
            raise self.wrong(f"expected True or False as {argument}, it is {value!r:.60}")

    def counts(self, argument: str, value: object) -> None:
        """Refuse what is no number, no name of an attribute and no function of the object."""
        if callable(value):
            self.calls(argument, value, "the object")
        elif not isinstance(value, str):
            self.expect(argument, value, int, "a whole number, the name of an attribute or a function of the object")
            self.whole(argument, value)

    def calls(self, argument: str, value: object, *takes: str, optional: bool = False) -> None:
        """Refuse what cannot be called with as many arguments as ``takes`` says in words."""
        if value is None and optional:
            return
        what = f"a function of {' and '.join(takes)}" if takes else "a function without arguments"
        if not callable(value):
            raise self.wrong(f"expected {what} as {argument}, it is {value!r:.60}")
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):
            return  # some built-in ones do not say what they take
        try:
            signature.bind(*takes)
        except TypeError as error:
            raise self.wrong(f"expected {what} as {argument}: {error}") from None

    def all_of(self, argument: str, values: object, kind: type, accepts: str) -> None:
        """Refuse what is no list of ``kind``."""
        self.expect(argument, values, (list, tuple), f"a list of {accepts}")
        assert isinstance(values, list | tuple)
        for value in values:
            self.expect(argument, value, kind, f"a list of {accepts}")

    def structure(self, argument: str, description: object) -> Structure:
        """The structure of what must be a description."""
        structure = getattr(description, "structure", None)
        if not isinstance(structure, Structure):
            raise self.wrong(f"expected a Description as {argument}, it is {description!r:.60}")
        return structure

    def nested(
        self, argument: str, description: object, new: Callable[[], object], version: int | None = None
    ) -> Nested:
        """The codec of a structure in this place."""
        structure = self.structure(argument, description)
        self.calls("new", new)
        return Nested(structure, new, version)

    def array(self, codec: Codec, length: Length | None, start: int | None = None) -> Codec:
        """The codec with its length around it, if it has one."""
        if length is None:
            if start is not None:
                raise self.wrong("it has a start, but no length")
            return codec
        self.counts("length", length)
        self.elements(codec)
        return self.part(Array(codec, length), start, length)

    def elements(self, codec: Codec) -> None:
        """Refuse elements that may have no bytes before their subsections: nothing would say whose these are."""
        if isinstance(codec, Nested) and not codec.least and codec.structure.subsections:
            raise self.wrong(
                f"an array of {codec.structure.name}, which has subsections, but no bytes that are always before them"
            )

    def part(self, codec: Codec, start: int | None, length: Length) -> Codec:
        """The codec for a part of a list or buffer, if it begins somewhere."""
        if start is None:
            return codec
        self.whole("start", start)
        if not isinstance(length, int):
            raise self.wrong("a part that begins somewhere must have a length that is a number")
        return Part(codec, start, length)

    def field(
        self,
        codec: Codec,
        placing: Placing,
        *,
        check: Callable[[object, object], None] | None = None,
        count: Length | None = None,
    ) -> Field:
        """The field; its attribute is called as it is, unless the declaration says otherwise."""
        if unknown := sorted(set(placing) - Placing.__optional_keys__):
            raise self.wrong(f"there is no argument {unknown[0]}; known besides: since, when, attribute")
        attribute, since, when = placing.get("attribute"), placing.get("since", 0), placing.get("when")
        if attribute is None:
            attribute = self._name
        self.whole("since", since)
        self.calls("when", when, "the object", "the version", optional=True)
        self.expect("attribute", attribute, str, "a string")
        counted = count if isinstance(count, str) else None
        return Field(self._name, codec, self.line, attribute, since, when, check, counted)
