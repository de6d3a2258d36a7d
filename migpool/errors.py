"""Every exception that migpool raises on purpose, in one small tree.

Catch :class:`MigpoolError` for all of them. The branches answer "whose fault": the caller's (:class:`UsageError`), the
peer's or the bytes' (:class:`ProtocolError`), a device's (:class:`DeviceError`), time's (:class:`TimeLimitExceeded`),
memory's (:class:`MemoryLimitExceeded`), or somebody's wish (:class:`Cancelled`).

Every message is one line: what is wrong, where, and what to do about it.
"""

from __future__ import annotations

from typing import Self


class MigpoolError(Exception):
    """The root of the tree."""


class UsageError(MigpoolError):
    """The caller asked for something that cannot be done: a wrong option, an unknown name, a call out of order."""


class ScenarioError(UsageError):
    """A scenario file is wrong. The message names the file, the key and the remedy."""


class DescriptionError(UsageError):
    """A description of device state contradicts itself, or the file it was to be read from holds none.

    For a description written in Python the message begins with the file and line of the declaration.
    """


class PluginError(MigpoolError):
    """A plug-in could not be found, imported or used. The message names the plug-in."""


class BuildError(MigpoolError):
    """A scenario's machine cannot be made on this host, whatever the threading model: a device's plug-in says why."""


class ProtocolError(MigpoolError):
    """The bytes of a stream are not what the format allows.

    Arguments:
        offset: where in its channel the offending item begins, in bytes.
        item: what was being read, in the format's own words ("section footer", "multifd packet header").
        expected: what would have been right there, and what stood there instead.
    """

    def __init__(self, offset: int, item: str, expected: str) -> None:
        super().__init__(offset, item, expected)
        self.offset = offset
        self.item = item
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.item} at byte {self.offset}: {self.expected}"


class DeviceError(MigpoolError):
    """A device failed to save or load its state.

    A plug-in raises it with a message alone; the migration adds which device and which chunk.

    Arguments:
        message: what happened, in the device author's words.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.device: str | None = None
        self.index: int | None = None

    def located(self, device: str, index: int | None = None) -> Self:
        """Say where it happened, unless that is known already; returns itself."""
        if self.device is None:
            self.device = device
        if self.index is None:
            self.index = index
        return self

    def located_index(self, index: int) -> Self:
        """Say which chunk it is about; the device is added later. Returns itself."""
        self.index = index
        return self

    def __str__(self) -> str:
        if self.device is None:
            return self.message
        where = self.device if self.index is None else f"{self.device}, chunk {self.index}"
        return f"{where}: {self.message}"


class BrokenDeviceError(DeviceError):
    """A device's plug-in did what the interface does not allow: it raised something else, or returned what it must not.

    The message says what came, what is allowed, and the plug-in's file and line.
    """


class DeviceBusy(DeviceError):
    """The device does not answer yet. A plug-in raises it from ``wake``, which must not keep the other devices waiting:
    it is resumed after them, and nothing is wrong with it if that succeeds."""


class VerificationError(DeviceError):
    """A device's state arrived, and is not the state that was sent."""


class PeerError(MigpoolError):
    """The other side of the migration failed, refused, or went away. The message carries its words if it sent any."""


class PeerGone(PeerError):
    """The other side is gone, or has failed, and has not said why: whoever knows that side knows more."""


class Untrusted(PeerError):
    """The other side has not proven who it is, or does not accept this side's proof."""


class TimeLimitExceeded(MigpoolError):
    """A wait on a peer, a device or a thread lasted longer than its limit. The message names the wait and the limit."""


class MemoryLimitExceeded(MigpoolError):
    """A peer that knows no credits sent more out-of-order state than the budget holds."""


class NotConverging(MigpoolError):
    """The machine writes its memory faster than it can be sent, so its downtime would be longer than is allowed."""


class Cancelled(MigpoolError):
    """The migration was cancelled."""


class PoolFull(MigpoolError):
    """``WorkerPool.submit`` found no room for a task within its time limit."""
