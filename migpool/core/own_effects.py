"""What the migration's own thread waits for beside all jobs, an effect at a time; see ``Interpreter.once``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migpool.core.effects import Effect, Wait
from migpool.core.machine import Slot

if TYPE_CHECKING:
    from migpool.wire.ram import RamPages


class Quiesce(Effect[None]):
    """The device is quiet towards others. No answer."""

    __slots__ = ()
    wait = Wait.QUIESCE
    doing = "quiesce"


class Stop(Effect[None]):
    """The device stands still. No answer."""

    __slots__ = ()
    wait = Wait.STOP
    doing = "stop"


class Wake(Effect[None]):
    """The device answers others again. No answer."""

    __slots__ = ()
    wait = Wait.WAKE
    doing = "wake"


class Start(Effect[None]):
    """The device runs. No answer."""

    __slots__ = ()
    wait = Wait.START
    doing = "start"


class SaveSetup(Effect[bytes]):
    """The device is prepared to be saved. The answer is what the destination's ``load_setup`` is given."""

    __slots__ = ()
    wait = Wait.SETUP
    doing = "save_setup"


class LoadSetup(Effect[None]):
    """The device is prepared to be loaded. No answer.

    Arguments:
        data: what the source's ``save_setup`` returned.
        version: that of the source's device; ``None`` where the stream says it elsewhere.
    """

    __slots__ = ("data", "version")
    wait = Wait.SETUP
    doing = "load_setup"

    def __init__(self, slot: Slot, data: bytes, version: int | None = None) -> None:
        super().__init__(slot)
        self.data = data
        self.version = version


class Iterate(Effect[int]):
    """State of a device that runs has gone into the main channel. The answer is how many bytes, 0 if it gave none."""

    __slots__ = ()
    wait = Wait.SETUP
    doing = "iterate"


class LoadIterated(Effect[None]):
    """The device has taken state that was saved while it ran. No answer."""

    __slots__ = ("data",)
    wait = Wait.PRECOPIED
    doing = "load_state"

    def __init__(self, slot: Slot, data: memoryview) -> None:
        super().__init__(slot)
        self.data = data


class LookForDirty(Effect[None]):
    """It is known which pages of the memory have been written. No answer."""

    __slots__ = ()
    wait = Wait.SCAN
    doing = "take_dirty"


class EndRound(Effect[None]):
    """Every channel carries a SYNC, and the main channel says so: no page of the next round overtakes one. No answer.

    Arguments:
        last: whether the machine stands still.
    """

    __slots__ = ("last",)
    wait = Wait.SYNC

    def __init__(self, slot: Slot, *, last: bool = False) -> None:
        super().__init__(slot)
        self.last = last


class AwaitSyncs(Effect[None]):
    """Every channel has come to its SYNC. No answer."""

    __slots__ = ()
    wait = Wait.SYNC


class LoadPages(Effect[int]):
    """Pages that came on the main channel are in their place. The answer is how many bytes of them came."""

    __slots__ = ("item",)
    wait = Wait.WRITE

    def __init__(self, slot: Slot, item: RamPages) -> None:
        super().__init__(slot)
        self.item = item
