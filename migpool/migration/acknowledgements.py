"""When a destination says SWITCHOVER_ACK: that the machine may stop, for what devices must have before is loaded.

Who counts differs, and a source that has the capability waits for ever for one that does not come:

======================  =============================================================================================
source                  it is said
======================  =============================================================================================
ours, with credits      when every device is set up; and when all have said that their initial data has been sent
QEMU, up to types 11.0  once, whoever asks: at once without iterable devices; else when all that give something while
                        they run have said so. Which ones those are, the end of the first iteration shows: a device
                        that cannot be pre-copied has no section in it
QEMU, types from 11.1   once for each device that says so: another one would be an error
any other               once, when all have said so
======================  =============================================================================================

A device has said so with the mark at the end of a section, and it has been loaded before the answer.
"""

from __future__ import annotations

from collections.abc import Callable


class Acknowledgements:
    """The destination's answers of one migration.

    Arguments:
        iterable: the numbers of the slots that are iterable.
        say: says SWITCHOVER_ACK.

    Attributes:
        ours: whether the source knows credits; until the configuration has come, not.
        counted: whether it counts who wants an answer: QEMU's machine types from 11.1 on; ``None`` if that is unknown.
    """

    def __init__(self, iterable: set[int], say: Callable[[], None]) -> None:
        self._iterable = iterable
        self._say = say
        self.ours = False
        self.counted: bool | None = None
        self._said = self._iterating = False
        self._give: set[int] = set()
        self._sent: set[int] = set()

    def opened(self) -> None:
        """The return path is open."""
        if not self._iterable and (self.ours or self.counted is False):
            self._once()

    def set_up(self, slots: set[int]) -> None:
        """So many of the devices are set up."""
        if self.ours and self._iterable <= slots:
            self._say()

    def gives(self, slot: int) -> None:
        """A device has a section while the machine runs."""
        self._give.add(slot)

    def iterates(self) -> None:
        """An iteration begins, and with it the memory's section: behind those of the devices in the one before."""
        if self._iterating and not self.ours and self.counted is False and self._give <= self._sent:
            self._once()
        self._iterating = True

    def initial_sent(self, slot: int) -> None:
        """All initial data of a device has come, and is loaded."""
        if slot in self._sent:
            return
        self._sent.add(slot)
        if self.counted and not self.ours:
            self._say()
        elif self._iterable <= self._sent:
            self._once()

    def _once(self) -> None:
        if not self._said:
            self._said = True
            self._say()
