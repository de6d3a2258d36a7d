"""How a machine stops, starts and runs again: in two steps, since devices can reach into each other.

Guarantees:

1. No device is spoken to by a peer after it has stopped: all are quiet before any stops.
2. No device speaks to one that does not answer yet: all are awake before any starts, or is resumed.
3. What was stopped first starts last: the vCPUs, when every device that they may touch already runs.
4. A machine of which a device cannot start stands again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from migpool.core.cancel import CancelSwitch
from migpool.core.device_calls import of
from migpool.core.handlers import Handlers
from migpool.core.interpreter import Interpreter
from migpool.core.machine import Machine, Slot, per_device
from migpool.core.own_effects import Quiesce, Start, Stop, Wake
from migpool.core.trace import Tracer
from migpool.errors import DeviceBusy


def stop(machine: Machine, tracer: Tracer, check: Callable[[], None]) -> None:
    """Stop every device, in the machine's order.

    Arguments:
        machine: it runs.
        tracer: each call leaves a span.
        check: called before each device; raises to give up.

    Raises:
        DeviceError: a device cannot stop; :func:`run_again` takes back what was done.
    """
    interpreter = _interpreter(tracer)
    for slot in machine:
        check()
        interpreter.once(Quiesce(slot))
    for slot in machine:
        check()
        interpreter.once(Stop(slot))


def start(machine: Machine, tracer: Tracer, started: list[Slot]) -> None:
    """Let every device run, in the reverse of the machine's order, when all have been loaded.

    Arguments:
        machine: stands still.
        tracer: each call leaves a span.
        started: filled with the devices that run.

    Raises:
        DeviceError: a device cannot start; those before it run, until :func:`stand`.
    """
    interpreter = _interpreter(tracer)
    for slot in reversed(machine.slots):
        interpreter.once(Wake(slot))
    for slot in reversed(machine.slots):
        interpreter.once(Start(slot))
        started.append(slot)


def stand(started: Sequence[Slot]) -> Exception | None:
    """Let devices stand again of a machine that could not start, the last one first.

    Arguments:
        started: those that run; others of the machine do not, and an abort may have come.

    Returns:
        The first error of a device that may run on.
    """
    order = tuple(reversed(started))
    per_device(order, lambda slot: of(slot, "wake", slot.device.wake))
    per_device(order, lambda slot: of(slot, "quiesce", slot.device.quiesce))
    return per_device(order, lambda slot: of(slot, "stop", slot.device.stop))


def run_again(machine: Machine) -> Exception | None:
    """Let every device run on where it was saved, whether or not it had stopped; returns the first error.

    A device that cannot does not keep the others from it; one that does not answer yet is waited for after them.
    """
    busy: list[Slot] = []

    def wake(slot: Slot) -> None:
        try:
            of(slot, "wake", slot.device.wake)
        except DeviceBusy:
            busy.append(slot)

    woken = per_device(machine, wake)
    in_order = (*(slot for slot in machine if slot not in busy), *busy)
    resumed = per_device(in_order, lambda slot: of(slot, "resume", slot.device.resume))
    return woken or resumed


def _interpreter(tracer: Tracer) -> Interpreter:
    """With a switch that nobody throws: a machine that begins to start is not left half-way."""
    handlers = Handlers()
    handlers.on(Quiesce, lambda effect: effect.slot.device.quiesce())
    handlers.on(Stop, lambda effect: effect.slot.device.stop())
    handlers.on(Wake, lambda effect: effect.slot.device.wake())
    handlers.on(Start, lambda effect: effect.slot.device.start())
    return Interpreter(handlers, Lock(), tracer, CancelSwitch())
