"""Devices whose every step takes as long as was measured of another machine's: what ``migpool scenario from`` writes.

Their state is made up, and different for each device; its digest proves that all of it arrived, in order.
"""

from __future__ import annotations

import hashlib
import time
from threading import Event
from typing import Final

from migpool.device import Device, DeviceContext, DeviceError, Option, Options, Outline, Pending, StateCosts

__all__ = ["OPTIONS", "MeasuredDevice", "devices"]

_SPUN: Final = 100e-6
"""Seconds that a wait's end is spun for: an event wakes its thread about as much too late."""
_BLOCK: Final = 1 << 16
_OFFSET: Final = 8
"""Bytes of a chunk that say where in the state it begins."""
MAX_SIZE: Final = 64 << 30
MAX_CONFIG: Final = 16 << 20

_NAME: Final = Option("name", "text", "measured", "its name in the stream (idstr)", "a name of 1 to 255 characters")
_INSTANCE: Final = Option.whole(
    "instance", 0, "its instance id; those of more devices of the entry count up from it", least=0, most=1 << 31
)
_SIZE: Final = Option.size("size", 0, "its state in chunks; without one it has a config alone")
_CONFIG: Final = Option.size("config_size", 0, "its config")
_STOP: Final = Option.seconds("stop", 0.0, "how long it takes to stop")
_READ: Final = Option.seconds("read", 0.0, "how long all reads of its state take")
_SAVE: Final = Option.seconds("save", 0.0, "how long its config takes to be saved, under the big lock")
_WRITE: Final = Option.seconds("write", 0.0, "how long all writes of its state take")
_LOAD: Final = Option.seconds("load", 0.0, "how long its config takes to be loaded, under the big lock")
_START: Final = Option.seconds("start", 0.0, "how long it takes to start")
_CHANNEL: Final = Option.seconds(
    "channel", 0.0, "what its save takes besides for each multifd channel; `migpool simulate` alone goes by it"
)
_MEMORY: Final = Option.flag(
    "memory", False, "whether it stands for what is left of the memory after the stop; `migpool simulate` goes by it"
)
OPTIONS: Final = Options(
    "measured",
    *(_NAME, _INSTANCE, _SIZE, _CONFIG),
    *(_STOP, _READ, _SAVE, _WRITE, _LOAD, _START, _CHANNEL, _MEMORY),
)


class MeasuredDevice(Device):
    """One such device.

    Arguments:
        seed: what its state is made of, the same at both ends.
        name, instance: as in the stream.
        outline: how long its steps take, and how large it is.
    """

    def __init__(self, seed: int, name: str, instance: int, outline: Outline) -> None:
        self.idstr, self.instance_id, self.iterable = name, instance, outline.size > 0
        self.note = "measured"
        self._outline = outline
        made = hashlib.shake_256(f"{seed}/{name}/{instance}".encode())
        self._block = memoryview(made.digest(_BLOCK if outline.size else 0))
        self._config = made.digest(outline.config_size)
        self._moved = 0
        self._digest = hashlib.sha256()
        self._complete = False
        self._aborted = Event()

    def pending(self) -> Pending:
        return Pending(stopcopy=self._outline.size - self._moved)

    def stop(self) -> None:
        self._begin()
        self._spend(self._outline.costs.stop, time.perf_counter())

    def save_state(self, buffer: memoryview) -> int:
        begun = time.perf_counter()
        length = min(len(buffer), self._outline.size - self._moved)
        for at in range(0, length, _BLOCK):
            buffer[at : min(at + _BLOCK, length)] = self._block[: min(_BLOCK, length - at)]
        said = self._moved.to_bytes(_OFFSET, "little")[:length]
        buffer[: len(said)] = said
        self._take(buffer[:length])
        self._spend(self._share(self._outline.costs.read, length), begun)
        return length

    def save_config(self) -> bytes:
        begun = time.perf_counter()
        self._digest.update(self._config)
        self._complete = True
        self._spend(self._outline.costs.save_config, begun)
        return self._config

    def load_state(self, data: memoryview) -> None:
        begun = time.perf_counter()
        if self._moved + len(data) > self._outline.size:
            raise DeviceError(f"more has come than the {self._outline.size} bytes of its state")
        self._take(data)
        self._spend(self._share(self._outline.costs.write, len(data)), begun)

    def load_config(self, data: bytes) -> None:
        begun = time.perf_counter()
        if self._moved != self._outline.size or len(data) != self._outline.config_size:
            raise DeviceError(
                f"{self._moved} bytes of state and {len(data)} of config have come, but it has {self._outline.size} "
                f"and {self._outline.config_size}: start both ends with the same scenario"
            )
        self._digest.update(data)
        self._complete = True
        self._spend(self._outline.costs.load_config, begun)

    def wake(self) -> None:
        self._aborted.clear()

    def start(self) -> None:
        self._spend(self._outline.start, time.perf_counter())

    def resume(self) -> None:
        self._begin()

    def fingerprint(self) -> bytes | None:
        return self._digest.digest() if self._complete else None

    def abort(self) -> None:
        self._aborted.set()

    def costs(self) -> StateCosts:
        return self._outline.costs

    def _begin(self) -> None:
        self._moved, self._complete = 0, False
        self._digest = hashlib.sha256()

    def _take(self, data: memoryview) -> None:
        self._digest.update(data)
        self._moved += len(data)

    def _share(self, whole: float, length: int) -> float:
        return whole * length / self._outline.size if length else 0.0

    def _spend(self, seconds: float, begun: float) -> None:
        """Take so long since ``begun``.

        Raises:
            DeviceError: the migration was aborted meanwhile, or before.
        """
        until = begun + seconds
        left = until - time.perf_counter()
        if self._aborted.wait(max(0.0, left - _SPUN)):
            raise DeviceError("the migration of this device was aborted")
        while time.perf_counter() < until:
            pass


def devices(context: DeviceContext) -> list[Device]:
    """Devices with sizes and times as measured of another machine's, each save and load of a config under the big lock.

    Arguments:
        context: ``count`` is how many there are of the name, with instance ids that count up.

    Raises:
        DeviceError: an option is wrong.
    """
    given = OPTIONS.read(context.options)
    name = given[_NAME]
    if not (isinstance(name, str) and 1 <= len(name) <= 255 and name.isascii() and name.isprintable()):
        raise given.wrong("name", name, _NAME.values)
    first = given[_INSTANCE]
    return [MeasuredDevice(context.seed, name, first + at, outline) for at, outline in enumerate(outlines(context))]


def outlines(context: DeviceContext) -> list[Outline]:
    """What they are and take, as the options say.

    Raises:
        DeviceError: an option is wrong.
    """
    given = OPTIONS.read(context.options)
    size, config = given[_SIZE], given[_CONFIG]
    if size > MAX_SIZE:
        raise given.wrong("size", size, f"at most {MAX_SIZE} bytes")
    if config > MAX_CONFIG:
        raise given.wrong("config_size", config, f"at most {MAX_CONFIG} bytes")
    read, write = given[_READ], given[_WRITE]
    for key, seconds in (("read", read), ("write", write)):
        if seconds and not size:
            raise given.wrong(key, seconds, "it with a size: other devices have a config alone")
    costs = StateCosts(stop=given[_STOP], read=read, write=write, save_config=given[_SAVE], load_config=given[_LOAD])
    outline = Outline(
        costs,
        size=size,
        config_size=config,
        start=given[_START],
        channel=given[_CHANNEL],
        memory=given[_MEMORY],
    )
    return [outline] * context.count
