"""Which jobs load which device, and how they come to the threading model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from migpool.core.effects import EndLiveTurn, Steps
from migpool.core.interpreter import Job
from migpool.core.jobs import load_config, load_described, load_live, load_parts, load_state
from migpool.core.machine import Slot, in_lanes
from migpool.device import TaggedDevice
from migpool.schedulers.base import Scheduler


class LoadJobs:
    """Submits them.

    Arguments:
        scheduler: the threading model.
        on_main: the numbers of the iterable devices whose state comes on the main channel.
        keep: whether the config of an iterable device is kept until every one of them has its state.
    """

    def __init__(self, scheduler: Scheduler, on_main: Collection[int], *, keep: bool) -> None:
        self._scheduler = scheduler
        self._on_main = on_main
        self._keep = keep
        # Atomic: each store and look-up; a device has one job a round.
        self._following: dict[int, int] = {}

    def submit(self, slots: Sequence[Slot]) -> None:
        """Have jobs load what comes of the devices over the multifd channels."""
        for slot, lane in in_lanes([slot for slot in slots if slot.number not in self._on_main], _jobs_of):
            self._scheduler.take(Job("load", self._loading(slot), slot, lane))

    def submit_configs(self, slots: Sequence[Slot]) -> None:
        """Every iterable device has its state, and none its config."""
        for slot in slots:
            self._scheduler.take(Job("config", load_config(slot), slot))

    def begin_round(self, slot: Slot) -> None:
        """The device runs, and has chunks in this round."""
        self._scheduler.take(Job("load live", load_live(slot, self._following.get(slot.number, 0)), slot))

    def end_round(self, effect: EndLiveTurn) -> None:
        """Go on behind the round's last chunk."""
        self._following[effect.slot.number] = effect.index

    def _loading(self, slot: Slot) -> Steps:
        if isinstance(slot.device, TaggedDevice):
            return load_parts(slot, keep=self._keep)
        if not slot.device.iterable:
            return load_described(slot)
        return load_state(slot, self._following.get(slot.number, 0), keep=self._keep)


def _jobs_of(slot: Slot) -> int:
    return slot.device.engines if isinstance(slot.device, TaggedDevice) else 1
