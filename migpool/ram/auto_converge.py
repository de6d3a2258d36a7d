"""What is done when memory is written faster than it can be sent: slow the vCPUs down, or give up.

The throttle rises in steps, each after two rounds in a row in which more than half of what was sent was written anew:
first a fifth of the time, then a tenth more each, up to ``MOST``. That is what QEMU's auto-converge does by default.
"""

from __future__ import annotations

from functools import partial

from migpool.core.device_calls import of
from migpool.core.machine import Machine, per_device
from migpool.errors import NotConverging
from migpool.precopy.rounds import PrecopyLimits, Round, RoundMeasure
from migpool.units import count_of

FIRST = 0.2
STEP = 0.1
MOST = 0.99
TOO_MUCH = 0.5
"""The part of a round's bytes that may be written anew."""
PATIENCE = 2
"""Rounds in a row that may go badly before a step."""


class AutoConverge:
    """Watches the rounds of one migration.

    Arguments:
        machine: whose devices are throttled.
        throttle: whether they are.

    Attributes:
        share: of the time for which the vCPUs are kept asleep just now.
    """

    def __init__(self, machine: Machine, *, throttle: bool) -> None:
        self._machine = machine
        self._throttle = throttle
        self._bad = 0
        self.share = 0.0

    def after(self, done: Round) -> None:
        """A round is over: throttle, if it is the second bad one in a row."""
        self._bad = self._bad + 1 if done.dirtied > TOO_MUCH * done.bytes else 0
        if self._throttle and self._bad >= PATIENCE and self.share < MOST:
            self._bad = 0
            self._set(min(MOST, self.share + STEP) if self.share else FIRST)

    def check(self, measured: RoundMeasure, limits: PrecopyLimits) -> None:
        """The rounds are over: see whether the memory that is left fits. What else is left no round can make less.

        Raises:
            NotConverging: it would take longer than the downtime limit.
        """
        left = measured.left.precopy
        expected = left / measured.rate if measured.rate else None
        if expected is None and measured.settled:
            return  # all pages so far held zeros: there is no rate, and nothing that would need one
        if left and (expected is None or expected > limits.downtime):
            after = f", with the vCPUs asleep for {self.share:.0%} of the time" if self.share else ""
            shown = "an unknown time" if expected is None else f"{expected * 1000:.0f} ms"
            raise NotConverging(
                f"the memory does not converge: after {count_of(measured.rounds, 'round')}{after} what is left would "
                f"take {shown}, more than the downtime limit of {limits.downtime * 1000:.0f} ms: "
                "raise the downtime limit, the bandwidth or the number of rounds"
            )

    def end(self) -> None:
        """Take the throttle away. Harmless when repeated."""
        if self.share:
            self.share = 0.0
            per_device(self._machine, lambda slot: slot.device.throttle(0.0))

    def _set(self, share: float) -> None:
        self.share = share
        for slot in self._machine:
            of(slot, "throttle", partial(slot.device.throttle, share))
