"""What a device says of itself in figures: how much it still has to save, and how long its own work takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pending:
    """How many bytes a device still has to save.

    Arguments:
        precopy: bytes that can be saved while the machine runs.
        stopcopy: bytes that can be saved only after it has stopped. An estimate is enough.
        initial: the part of ``precopy`` that should be loaded before the machine stops, since the destination needs it
            to be quick afterwards. The switchover waits until it is 0 and the destination has said that it has it.
        guessed: whether the device cannot say what ``precopy`` is, which is then as much as to read of it in a round.
            It is read until it has nothing, and then says 0; or for the most rounds that there may be.
    """

    precopy: int = 0
    stopcopy: int = 0
    initial: int = 0
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class StateCosts:
    """How long a device's own work takes when nothing is in its way, in seconds. The report's lower bound rests on it.

    Only what comes after the stop counts: not what ``iterate`` saved before, nor the time to load that.

    Arguments:
        stop: one call of ``stop``.
        read: all calls of ``save_state`` together.
        write_chunk: one call of ``load_state`` with a whole chunk.
        write: all calls of ``load_state`` together, with what ``save_state`` gave.
        save_config: one call of ``save_config``.
        load_config: one call of ``load_config``.
        shared_lock: the name of a lock outside the migration (in a kernel driver, say) that this device's reads and
            writes hold and others of the same name wait for; empty without one.
    """

    stop: float = 0.0
    read: float = 0.0
    write_chunk: float = 0.0
    write: float = 0.0
    save_config: float = 0.0
    load_config: float = 0.0
    shared_lock: str = ""
