"""What each class of effect means at one side, for the interpreter; and how another thread brings an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias, TypeVar, cast

from migpool.core.buffers import Chunk
from migpool.core.effects import Effect, NextChunk

Handler: TypeAlias = Callable[[Effect[object]], object]
"""Performs one kind of effect, blocking, and returns the job's answer."""

A = TypeVar("A")
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)
E_contra = TypeVar("E_contra", contravariant=True)
A_co = TypeVar("A_co", covariant=True)


class Ready(Protocol):
    """Called once, by another thread, when a job that was left can be carried on."""

    def __call__(self, brought: object = None, /) -> None:
        """Carry it on: with the answer to what it waited for, or without one, to try again."""
        ...


class EffectClass(Protocol[E_co, A_contra]):
    """A class of effects, by what it is answered with: how a type checker ties a handler to it."""

    def performed_by(self, handler: Callable[[E_co], A_contra], /) -> object:
        """See :meth:`Effect.performed_by`."""
        ...


class Caller(Protocol[E_contra, A_co]):
    """Answers one kind of effect, or has somebody called; as :meth:`ChunkSource.take_or_call`."""

    def __call__(self, effect: E_contra, /, ready: Ready, *, leave: bool) -> A_co | None:
        """Return the answer, which is not ``None``, if it is there; if not, have ``ready`` called when it is."""
        ...


class Handlers(dict[type[Effect[object]], Handler]):
    """What each class of effect means at one side.

    Attributes:
        callers: how the effects that can be waited for without a thread are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.callers: dict[type[Effect[object]], Caller[Effect[object], object]] = {}

    def on(self, kind: EffectClass[E, A], handler: Callable[[E], A]) -> None:
        """Have ``handler`` perform effects of ``kind``. It is an error to a type checker if it gives another answer."""
        self[cast("type[Effect[object]]", kind)] = cast("Handler", handler)

    def on_call(self, kind: EffectClass[E, A], caller: Caller[E, A]) -> None:
        """Have ``caller`` answer effects of ``kind`` when nobody is to wait."""
        self.callers[cast("type[Effect[object]]", kind)] = cast("Caller[Effect[object], object]", caller)


class ChunkSource(Protocol):
    """Where ``NextChunk`` is answered from."""

    def take(self, effect: NextChunk) -> Chunk:
        """Wait for the chunk on the calling thread, and return it."""
        ...

    def take_or_call(self, effect: NextChunk, ready: Ready, *, leave: bool) -> Chunk | None:
        """Return the chunk if it is there; if not, return ``None`` and have whoever brings it call ``ready``.

        ``ready`` is called once for each such answer, with the chunk, and also when the migration is cancelled, without
        one. With ``leave`` the chunk may be kept back although it is there, if it is sure that somebody will bring
        another one.
        """
        ...
