"""How a machine stops, starts and runs again: in two steps, since devices can reach into each other.

Guarantees:

1. No device is spoken to by a peer after it has stopped: all are quiet before any stops.
2. No device speaks to one that does not answer yet: all are awake before any starts, or is resumed.
3. What was stopped first starts last: the vCPUs, when every device that they may touch already runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from migpool.core.effects import Wait
from migpool.core.interpreter import of
from migpool.core.machine import Machine, Slot, per_device
from migpool.core.trace import Tracer

__all__ = ["run_again", "start", "stop"]


def stop(machine: Machine, tracer: Tracer, check: Callable[[], None]) -> None:
    """Stop every device, in the machine's order.

    Arguments:
        machine: it runs.
        tracer: each call leaves a span.
        check: called before each device; raises to give up.

    Raises:
        DeviceError: a device cannot stop; :func:`run_again` takes back what was done.
    """
    for slot in machine:
        check()
        _timed(tracer, Wait.QUIESCE, slot, "quiesce", slot.device.quiesce)
    for slot in machine:
        check()
        _timed(tracer, Wait.STOP, slot, "stop", slot.device.stop)


def start(machine: Machine, tracer: Tracer) -> None:
    """Let every device run, in the reverse of the machine's order, when all have been loaded.

    Arguments:
        machine: stands still.
        tracer: each call leaves a span.

    Raises:
        DeviceError: a device cannot start; those before it run.
    """
    for slot in reversed(machine.slots):
        _timed(tracer, Wait.WAKE, slot, "wake", slot.device.wake)
    for slot in reversed(machine.slots):
        _timed(tracer, Wait.START, slot, "start", slot.device.start)


def run_again(machine: Machine) -> Exception | None:
    """Let every device run on where it was saved, whether or not it had stopped; returns the first error.

    A device that cannot does not keep the others from it.
    """
    woken = per_device(machine, lambda slot: of(slot, "wake", slot.device.wake))
    resumed = per_device(machine, lambda slot: of(slot, "resume", slot.device.resume))
    return woken or resumed


def _timed(tracer: Tracer, wait: Wait, slot: Slot, doing: str, call: Callable[[], None]) -> None:
    begin = time.monotonic_ns()
    of(slot, doing, call)
    tracer.record(wait, slot.number, -1, begin)
