"""What one side of a migration has to say about it afterwards."""

from __future__ import annotations

import hashlib
import resource
import uuid
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, NamedTuple

from migpool.core import returned
from migpool.core.device_calls import of
from migpool.core.machine import Slot
from migpool.core.trace import Span
from migpool.device import Side
from migpool.migration.states import State
from migpool.transport.tcp_use import TcpUse
from migpool.wire.returnpath import DIGEST_SIZE

DESTINATIONS: Final = {"destination": True}
"""Marks a field of a device's row that only the destination fills."""


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One device: what a side says of it, and with it the row of ``devices`` in the result.

    Attributes:
        name: its idstr, with ``#`` and the instance id if that is not 0.
        note: what the device says of itself ("KVM").
        iterable: whether it has state besides its config, in chunks.
        bytes: how much of its state and config was sent, without headers; 0 at the destination.
        verified: whether what arrived is what was sent; ``None`` where that is not known.
        remark: what there is to say of it afterwards; only the destination's device has something to say.
        bytes_before_stop: how many of them were sent while the machine ran.
        redone: how many bytes of the state that was sent while the machine ran changed meanwhile, as far as the device
            said, and so had to be sent anew.
        config: how many of the bytes are the config.
        high_water: how many bytes of the destination's buffers it held at once, at the most; only the destination
            knows, where credits bound it.
        described: whether it is not iterable, and its config went over the multifd channels all the same.
    """

    name: str
    note: str
    iterable: bool
    bytes: int = 0
    verified: bool | None = None
    remark: str = field(default="", metadata=DESTINATIONS)
    bytes_before_stop: int = 0
    redone: int = 0
    config: int = 0
    described: bool = False
    high_water: int = field(default=0, metadata=DESTINATIONS)

    def completed_by(self, other: DeviceReport) -> DeviceReport:
        """The source's row, with what only the ``other`` side knows, the destination."""
        return replace(
            self, **{one.name: getattr(other, one.name) for one in fields(self) if "destination" in one.metadata}
        )

    @property
    def has_job(self) -> bool:
        """Whether what it has went over the multifd channels, by a job of its own."""
        return self.iterable or self.described

    @property
    def bytes_after_stop(self) -> int:
        """How many of the bytes were sent after the machine had stopped."""
        return self.bytes - self.bytes_before_stop


class Exchange(NamedTuple):
    """A PING and its PONG, as one side saw them.

    Arguments:
        value: which.
        begin: when it was asked at the source, or answered at the destination, by that side's clock in nanoseconds.
        end: when the answer was heard at the source; at the destination the same as ``begin``.
    """

    value: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class SideReport:
    """One side of a migration. Times are CLOCK_MONOTONIC in nanoseconds, 0 where it did not come to that.

    Attributes:
        side: which end.
        outcome: the state it ended in.
        error: why, in one line; empty if nothing went wrong.
        began: when the migration began.
        stopped: when the source began to stop the machine.
        running: when the destination had it running, on the clock of the side that reports.
        ended: when everything was over.
        clock: how ``running`` was had at the source: "monotonic" (one host, one clock), "return-path" (the answer's
            arrival less half a round trip), or "exchanges" (the destination's own word, by clocks that are related
            afterwards); empty at the destination.
        bytes: sent or received on all channels, without headers of the multifd packets.
        threads_peak: the most threads that worked for the migration at once, the caller's included.
        budget: the memory budget in bytes.
        high_water: the most bytes of it that were in use at once.
        rss_peak: the process's largest resident size so far, in bytes.
        devices: in the machine's order.
        spans: every wait.
        threads_before: how many threads worked for the migration when its switchover began, the caller's included.
        remarks: what a reader should know of how the threading model went to work here, a sentence each.
        peer_gone: whether the error only says that the other side is gone or has failed: that one knows why.
        waited: whether the error is that something did not come in time, or only shows that.
        traceback: of what a device raised that it must not; empty without one.
        exchanges: by which the clocks of two hosts can be related.
        connections: how the source used each of its TCP connections; those of the destination are not told.
        processors_short: for how many nanoseconds of the downtime, as this side sees it, some thread of this host,
            whoever's, was ready and had no processor; ``None`` where the system does not tell.
    """

    side: Side
    outcome: State
    error: str
    began: int
    stopped: int
    running: int
    ended: int
    clock: str
    bytes: int
    threads_peak: int
    budget: int
    high_water: int
    rss_peak: int
    devices: tuple[DeviceReport, ...]
    spans: tuple[Span, ...] = field(repr=False)
    threads_before: int = 0
    remarks: tuple[str, ...] = ()
    peer_gone: bool = False
    waited: bool = False
    traceback: str = ""
    exchanges: tuple[Exchange, ...] = ()
    connections: tuple[TcpUse, ...] = ()
    processors_short: int | None = None

    @property
    def precopied(self) -> int:
        """How many of the bytes were sent before the machine stopped; 0 at the destination."""
        return sum(device.bytes_before_stop for device in self.devices)

    @property
    def succeeded(self) -> bool:
        """Whether the machine runs at the destination, and no device's state is known to be another one."""
        return self.outcome is State.COMPLETED and not any(device.verified is False for device in self.devices)

    @property
    def verified(self) -> bool | None:
        """Whether the fingerprints of both ends say that every device's state at the destination is the one sent.

        ``None`` if the machine runs there and not every state was compared: a device has no fingerprint, or this is the
        destination, which compares nothing.
        """
        if not self.succeeded:
            return False
        compared = [device.verified for device in self.devices if device.bytes]
        return True if compared and all(compared) else None


def boot_id() -> bytes:
    """16 bytes that two processes share just if they share CLOCK_MONOTONIC: this kernel's boot id.

    In a time namespace in which that clock is shifted it is another one. Where there is none it is random, so that no
    two hosts seem to be one.
    """
    try:
        boot = uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    except (OSError, ValueError):
        return uuid.uuid4().bytes
    try:
        # The namespace of the processes that it starts, which is its own unless it has just made one.
        shifts = dict(line.split(maxsplit=1) for line in Path("/proc/self/timens_offsets").read_text().splitlines())
        shift = " ".join(shifts["monotonic"].split())
    except (OSError, ValueError, KeyError):
        return boot.bytes
    return boot.bytes if shift == "0 0" else uuid.uuid5(boot, shift).bytes


def processors_short() -> int | None:
    """For how many nanoseconds so far some thread of this host was ready and had no processor; ``None``: not known."""
    try:
        some = Path("/proc/pressure/cpu").read_text("ascii").splitlines()[0]
        return int(some.partition("total=")[2]) * 1000
    except (OSError, IndexError, ValueError):
        return None


def peak_rss() -> int:
    """The largest resident size that this process has had, in bytes; without what it shares now, which is devices'.

    ``ru_maxrss`` would not do: Linux hands the parent's high-water mark down to a process that it starts.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
        most, shared = (int(status.partition(name)[2].split()[0]) for name in ("VmHWM:", "RssShmem:"))
        return (most - shared) * 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def digest_of(slot: Slot) -> bytes:
    """A device's fingerprint as the return path carries it: 32 bytes, all zero without one."""
    fingerprint = of(slot, "fingerprint", lambda: returned.digest(slot, "fingerprint", slot.device.fingerprint()))
    if fingerprint is None:
        return bytes(DIGEST_SIZE)
    return fingerprint if len(fingerprint) == DIGEST_SIZE else hashlib.sha256(fingerprint).digest()
