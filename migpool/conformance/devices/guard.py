"""Every call of a device, by the kit or by a migration: what it raises and returns is checked, that it lasts noted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Final

from migpool.core.device_calls import NOTES, Call, of
from migpool.core.machine import Slot
from migpool.core.returned import RETURNS
from migpool.device import Device, MemoryDevice, TaggedDevice

METHODS: Final = tuple(
    dict.fromkeys(
        name
        for kind in (Device, TaggedDevice, MemoryDevice)
        for name, made in vars(kind).items()
        if callable(made) and not name.startswith("_")
    )
)
FILLING: Final = ("iterate", "save_state", "save_part")


def guard(slot: Slot) -> None:
    """Have each call of the device noted while it lasts, and checked. What it calls of itself is its own affair."""
    for method in METHODS:
        if (call := getattr(slot.device, method, None)) is not None:
            setattr(slot.device, method, partial(_guarded, slot, method, call))


def _guarded(slot: Slot, method: str, call: Callable[..., object], *given: object) -> object:
    note = NOTES.get(get_ident())
    if isinstance(note, Call) and note.owner is slot:
        return call(*given)
    return of(slot, method, lambda: _checked(slot, method, call, given))


def _checked(slot: Slot, method: str, call: Callable[..., object], given: tuple[object, ...]) -> object:
    came = call(*given)
    check = RETURNS.get(method)
    if check is None:
        return came
    room = (len(given[0]),) if method in FILLING else ()  # type: ignore[arg-type]  # the buffer
    return check(slot, method, came, *room)
