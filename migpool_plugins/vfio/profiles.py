"""Device profiles: what an emulated VFIO device holds and how long its work takes.

Where ``network-function`` comes from: published downtimes of ConnectX-7 virtual functions of about 100 MiB of state,
100 GbE, a thread a device: 366 ms with one function, of which the config load under the big lock is about 70 ms. At
400 MiB/s a read of 100 MiB takes 250 ms; with the writes behind it, 5 ms to stop and the config this makes 325 ms and
leaves 41 ms to guest memory and everything else. The 190 to 270 ms that every further function adds in those tables
are 70 ms of serial config load and something shared that nobody has named: the profile leaves ``shared_lock`` empty,
and a scenario that wants to know sets it. Stop time and latencies were not published; they are round numbers of the
size that drivers show, and small beside the rest.

``storage-function`` is no measured device: little state, small chunks, a long stop (requests in flight must finish).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from migpool_plugins.vfio.migration import Flags

KIB: Final = 1 << 10  # not migpool's: the device process loads nothing of it
MIB: Final = 1 << 20
PAGE: Final = 4 * KIB
"""What the tags of parts count in; see ``engines.py``."""

SharedLockUse: TypeAlias = Literal["", "read", "write", "both"]
Transport: TypeAlias = Literal["descriptor", "vfio-user"]
FaultKind: TypeAlias = Literal["error", "stall", "crash", "short-read"]

MAX_SIZE: Final = 16 << 30
MAX_CHUNK: Final = 64 * MIB
MAX_MESSAGE: Final = 128 * KIB
"""Bytes of a message between the migrating process and the device process; see ``server.py``."""
MAX_CONFIG: Final = 64 * KIB
"""A config crosses the control connection as one message, which bounds it."""
MAX_TIME: Final = 3600.0
MAX_ENGINES: Final = 64


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One device's size and pace.

    The fields are the options of the same names, which say what they are (``options.py``): sizes in bytes, rates in
    bytes per second with 0 for no limit, times in seconds. The device produces and paces its state in pieces of
    ``chunk``, and no read returns more.

    Raises:
        ValueError: a value is out of its range; one line that names the field.
    """

    size: int
    chunk: int
    read_rate: float = 0.0
    write_rate: float = 0.0
    read_latency: float = 0.0
    write_latency: float = 0.0
    stop_time: float = 0.0
    save_config_time: float = 0.0
    config_size: int = 1024
    load_config_time: float = 0.0
    shared_lock: SharedLockUse = ""
    pollable: bool = False
    transport: Transport = "vfio-user"
    p2p: bool = True
    precopy: bool = False
    initial_size: int = 0
    dirty_rate: float = 0.0
    engines: int = 0

    def __post_init__(self) -> None:
        self._check("size", self.size, 1, MAX_SIZE, "bytes")
        self._check("chunk", self.chunk, 1, MAX_CHUNK, "bytes")
        self._check("config_size", self.config_size, 0, MAX_CONFIG, "bytes")
        self._check("initial_size", self.initial_size, 0, self.size, "bytes, at most the size")
        for name in ("read_rate", "write_rate", "dirty_rate"):
            rate: float = getattr(self, name)
            if rate:
                self._check(name, rate, 1, 1 << 50, "bytes per second, or 0 for no limit")
        for name in ("read_latency", "write_latency", "stop_time", "save_config_time", "load_config_time"):
            self._check(name, getattr(self, name), 0, MAX_TIME, "seconds")
        if self.shared_lock not in ("", "read", "write", "both"):
            raise ValueError(f'shared_lock is {self.shared_lock!r}: use "", "read", "write" or "both"')
        if self.transport not in ("descriptor", "vfio-user"):
            raise ValueError(f'transport is {self.transport!r}: use "vfio-user" or "descriptor"')
        if self.pollable and self.transport != "descriptor":
            raise ValueError('pollable is True: use it with transport "descriptor", vfio-user has nothing to wait on')
        if self.precopy and self.transport != "vfio-user":
            raise ValueError('precopy is True: use it with transport "vfio-user", a descriptor cannot say "not now"')
        self._check("engines", self.engines, 0, MAX_ENGINES, "engines")
        if self.engines:
            self._check_engines()
        if not self.precopy and (self.initial_size or self.dirty_rate):
            name = "initial_size" if self.initial_size else "dirty_rate"
            raise ValueError(f"{name} is {getattr(self, name):g}: use it with precopy = true")

    def _check_engines(self) -> None:
        for name in ("precopy", "pollable"):
            if getattr(self, name):
                raise ValueError(f"{name} is True: a device with engines has none of it, leave one of the two out")
        if self.chunk % PAGE:
            raise ValueError(f"chunk is {self.chunk}: with engines use a multiple of {PAGE} bytes")

    @staticmethod
    def _check(name: str, value: float, least: float, most: float, unit: str) -> None:
        if not least <= value <= most:
            raise ValueError(f"{name} is {value:g}: use {least} to {most:g} {unit}")

    @property
    def flags(self) -> Flags:
        """What a device of this profile can do."""
        return Flags.STOP_COPY | (Flags.P2P if self.p2p else 0) | (Flags.PRE_COPY if self.precopy else 0)

    @property
    def chunks(self) -> int:
        """How many chunks the state is cut into."""
        return -(-self.size // self.chunk)

    def read_cost(self, length: int) -> float:
        """Seconds to produce ``length`` bytes as one chunk."""
        return self.read_latency + (length / self.read_rate if self.read_rate else 0.0)

    def write_cost(self, length: int) -> float:
        """Seconds to take ``length`` bytes in one write."""
        return self.write_latency + (length / self.write_rate if self.write_rate else 0.0)

    def locks(self, direction: Literal["read", "write"]) -> bool:
        """Whether the shared lock is held in this direction."""
        return self.shared_lock in (direction, "both")


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that a device shows once, when its save or load comes to a byte.

    Arguments:
        at: offset in the state of the first byte that is not read or written any more (``short-read``: where one read
            ends early).
        kind: ``error``: the read or write fails; ``stall``: it never returns; ``crash``: the device process ends;
            ``short-read``: a read returns less than was asked for, and nothing is wrong.
    """

    at: int
    kind: FaultKind


PROFILES: Final = {
    "network-function": DeviceProfile(
        size=64 * MIB,
        chunk=MIB,
        read_rate=400 * MIB,
        write_rate=400 * MIB,
        read_latency=100e-6,
        write_latency=100e-6,
        stop_time=5e-3,
        load_config_time=70e-3,
    ),
    "storage-function": DeviceProfile(
        size=8 * MIB,
        chunk=256 * KIB,
        read_rate=1024 * MIB,
        write_rate=1024 * MIB,
        read_latency=50e-6,
        write_latency=50e-6,
        stop_time=20e-3,
        load_config_time=10e-3,
    ),
    "instant": DeviceProfile(size=64 * MIB, chunk=MIB, transport="descriptor"),
    "tiny": DeviceProfile(size=256 * KIB, chunk=64 * KIB),
}
"""The built-in profiles. ``instant`` and ``tiny`` have no delay at all: they are for tests and for raw throughput."""

DEFAULT_PROFILE: Final = "network-function"
