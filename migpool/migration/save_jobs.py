"""Which jobs save which device, and how they come to the threading model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from migpool.core.cancel import CancelSwitch
from migpool.core.effects import Steps
from migpool.core.interpreter import Job
from migpool.core.jobs import keep_config, save_described, save_lane, save_parts, save_state
from migpool.core.machine import Machine, Slot, in_lanes
from migpool.device import TaggedDevice
from migpool.migration.lanes import Lanes
from migpool.schedulers.base import Scheduler


class SaveJobs:
    """Submits them.

    Arguments:
        machine: whose devices are saved.
        on_main: the numbers of the iterable devices whose state crosses on the main channel.
        in_flight: how many jobs save an iterable device at once, if the device does not say.
        chunk: the longest chunk, in bytes.
        scheduler: the threading model.
        switch: ends every wait.

    Attributes:
        lanes: of the iterable devices that several jobs may save, how many do, by slot number.
        most: how many jobs save iterable devices at once.
        shared_reads: whose turn it is at a device that several jobs save.
    """

    def __init__(
        self,
        machine: Machine,
        on_main: Collection[int],
        in_flight: int,
        chunk: int,
        scheduler: Scheduler,
        switch: CancelSwitch,
    ) -> None:
        self._on_main = on_main
        self._in_flight = in_flight
        self._chunk = chunk
        self._scheduler = scheduler
        counts = {slot: self._lanes_of(slot) for slot in machine.iterable}
        self.most = sum(counts.values())
        self.lanes = {
            slot.number: count for slot, count in counts.items() if count > 1 or isinstance(slot.device, TaggedDevice)
        }
        self.shared_reads = Lanes(self.lanes, switch)

    def submit(self, slots: Sequence[Slot], following: Mapping[int, int]) -> None:
        """Have jobs save the devices.

        Arguments:
            slots: the devices, in order.
            following: the index of each one's next chunk, if not 0, by slot number.
        """
        self.shared_reads.begin_at(following)
        for slot, lane in in_lanes(slots, self._lanes_of):
            self._scheduler.take(Job("save", self._saving(slot, lane, following), slot, lane))

    def submit_configs(self, slots: Sequence[Slot]) -> None:
        """The small jobs first: they wait for nobody, and no model keeps them waiting behind those that do."""
        for slot in slots:
            if slot.device.config_job:
                self._scheduler.take(Job("config", keep_config(slot), slot))

    def _saving(self, slot: Slot, lane: int, following: Mapping[int, int]) -> Steps:
        if not slot.device.iterable:
            return save_described(slot, self._chunk)
        if isinstance(slot.device, TaggedDevice):
            return save_parts(slot, lane)
        return save_lane(slot, lane) if self._lanes_of(slot) > 1 else save_state(slot, following.get(slot.number, 0))

    def _lanes_of(self, slot: Slot) -> int:
        if not slot.device.iterable or slot.number in self._on_main:
            return 1
        if isinstance(slot.device, TaggedDevice):
            return slot.device.engines
        return slot.device.in_flight or self._in_flight
