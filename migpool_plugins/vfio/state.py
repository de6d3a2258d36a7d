"""The migration state of one emulated device, on the device process's side: states, config, digests.

The states and arcs are those of the VFIO migration interface that an emulated device needs::

    RUNNING --> PRE_COPY --> STOP_COPY --> RUNNING        source; the second arc takes stop_time
    RUNNING --> STOP_COPY                                 source, without set-up
    RUNNING --> RESUMING --> RUNNING                      destination; the second arc only after the config
    any     --> RUNNING                                   reset

As with a real driver, entering PRE_COPY, STOP_COPY (from RUNNING) and RESUMING opens the data descriptor, PRE_COPY to
STOP_COPY keeps it, and leaving ends it. The emulated device has nothing to pre-copy: its descriptor is silent until
STOP_COPY, where the device begins its first chunk without waiting for a reader.
"""

from __future__ import annotations

import enum
import hashlib
import struct
import time
from typing import Final

from migpool_plugins.vfio.content import BaseBlock, Memory, StateContent
from migpool_plugins.vfio.control import Refusal
from migpool_plugins.vfio.pacing import SharedLock
from migpool_plugins.vfio.profiles import DeviceProfile, Fault
from migpool_plugins.vfio.transfer import LoadTransfer, SaveTransfer, Transfer


class MigrationState(enum.Enum):
    """Where a device is; the values are the words of the control messages."""

    RUNNING = "running"
    PRE_COPY = "pre-copy"
    STOP_COPY = "stop-copy"
    RESUMING = "resuming"


ARCS: Final = {
    (MigrationState.RUNNING, MigrationState.PRE_COPY),
    (MigrationState.RUNNING, MigrationState.STOP_COPY),
    (MigrationState.RUNNING, MigrationState.RESUMING),
    (MigrationState.PRE_COPY, MigrationState.STOP_COPY),
    (MigrationState.PRE_COPY, MigrationState.RUNNING),
    (MigrationState.STOP_COPY, MigrationState.RUNNING),
    (MigrationState.RESUMING, MigrationState.RUNNING),
}

CONFIG_HEADER: Final = struct.Struct("!8sQ32s")
"""Before the config's content: a magic, the size of the state in bytes, its SHA-256."""
CONFIG_MAGIC: Final = b"vfioconf"


class DeviceState:
    """One device. All calls come from one thread.

    Arguments:
        idstr: the device's name; with the seed it decides the content.
        profile: sizes and pace.
        base: the process's base block.
        source: which side this is. A destination also has memory for what it receives.
        shared: the process's shared lock; the profile says whether this device uses it.
        fault: what goes wrong, once; ``None``: nothing.
    """

    def __init__(
        self,
        idstr: str,
        profile: DeviceProfile,
        base: BaseBlock,
        source: bool,
        shared: SharedLock,
        fault: Fault | None,
    ) -> None:
        self.state = MigrationState.RUNNING
        self._profile = profile
        self._content = StateContent(base, idstr, profile.size, profile.config_size)
        self._received = None if source else Memory(profile.size)
        self._shared = shared
        self._faults = [fault] if fault is not None else []
        self._transfer: Transfer | None = None
        self._moved = 0
        self._config_loaded = False

    def set_state(self, target: MigrationState) -> Transfer | None:
        """Go to another state; returns the transfer if one was opened.

        Raises:
            Refusal: there is no such arc, or RESUMING is left before everything has been loaded.
        """
        if (self.state, target) not in ARCS:
            raise Refusal(f"a device that is {self.state.value} cannot become {target.value}")
        if self.state is MigrationState.RESUMING and not self._config_loaded:
            raise Refusal("the device cannot run before its config has been loaded")
        opened = self._open(target) if self._transfer is None else None
        if target is MigrationState.STOP_COPY:
            time.sleep(self._profile.stop_time)
        if target is MigrationState.RUNNING:
            self._end_transfer()
        elif target is not MigrationState.PRE_COPY and self._transfer is not None:
            self._transfer.begin()
        self.state = target
        return opened

    def reset(self) -> None:
        """Run again, whatever the state was; a transfer in progress ends."""
        self._end_transfer()
        self._config_loaded = False
        self.state = MigrationState.RUNNING

    def finish_save(self) -> int:
        """Return how many bytes the other process was given; called when it has seen the end of the data.

        Raises:
            Refusal: the device failed to produce all of its state.
        """
        transfer = self._in_state(MigrationState.STOP_COPY, "nothing is being saved")
        if transfer.error is not None:
            raise transfer.error
        return transfer.offset

    def save_config(self) -> bytes:
        """Return the config; takes the profile's time.

        Raises:
            Refusal: the state has not been saved whole before.
        """
        transfer = self._in_state(MigrationState.STOP_COPY, "the config is saved after the device has been stopped")
        if transfer.offset != self._profile.size:
            raise Refusal(
                f"the config is saved after all state, but {transfer.offset} of {self._profile.size} bytes were read"
            )
        time.sleep(self._profile.save_config_time)
        header = CONFIG_HEADER.pack(CONFIG_MAGIC, self._content.size, self._content.digest)
        return header + self._content.config

    def load_config(self, data: bytes) -> None:
        """Check and take the config; takes the profile's time.

        Raises:
            Refusal: not all state has been loaded, or the config is not this device's.
        """
        transfer = self._in_state(MigrationState.RESUMING, "the config came before the device was ready to load")
        if transfer.error is not None:
            raise transfer.error
        content, size = self._content, self._profile.size
        if transfer.offset != size:
            raise Refusal(f"the state is incomplete: {transfer.offset} of {size} bytes have come", "verification")
        expected = CONFIG_HEADER.size + len(content.config)
        if len(data) != expected:
            raise Refusal(f"the config is {len(data)} bytes long, {expected} are right", "verification")
        magic, sent, digest = CONFIG_HEADER.unpack_from(data)
        if magic != CONFIG_MAGIC:
            raise Refusal("the config is not one of an emulated VFIO device", "verification")
        # Every write was compared with the state, so what came has the state's digest; here both ends' truths meet.
        if (sent, digest) != (size, content.digest):
            raise Refusal("the config belongs to another state: its size or digest differs", "verification")
        if data[CONFIG_HEADER.size :] != content.config:
            pairs = enumerate(zip(data[CONFIG_HEADER.size :], content.config, strict=True), CONFIG_HEADER.size)
            wrong = next(index for index, (came, right) in pairs if came != right)
            raise Refusal(f"the config differs at byte {wrong}", "verification")
        time.sleep(self._profile.load_config_time)
        self._config_loaded = True

    def fingerprint(self) -> bytes:
        """Return the SHA-256 of what was really sent, or received, in the last transfer."""
        moved = self._transfer.offset if self._transfer is not None else self._moved
        memory = self._received if self._received is not None else self._content.memory
        return hashlib.sha256(memory.view[:moved]).digest()

    def verify(self) -> None:
        """Check that a destination's device runs with the state that was sent.

        Raises:
            Refusal: it does not.
        """
        if self._received is None or self.state is not MigrationState.RUNNING or not self._config_loaded:
            raise Refusal("the device has not been loaded and started", "verification")
        wrong = self._content.first_difference(self._received, 0, self._profile.size)
        if wrong is not None:
            raise Refusal(f"content differs at byte {wrong} of the state", "verification")

    def record(self) -> list[tuple[float, float]]:
        """Return when each chunk of the transfer in progress was worked on: begin and end, CLOCK_MONOTONIC, seconds."""
        return self._transfer.pacer.record if self._transfer is not None else []

    def _in_state(self, state: MigrationState, otherwise: str) -> Transfer:
        if self.state is not state or self._transfer is None:
            raise Refusal(f"{otherwise}: the device is {self.state.value}")
        return self._transfer

    def _open(self, target: MigrationState) -> Transfer:
        profile = self._profile
        if target is not MigrationState.RESUMING:
            shared = self._shared if profile.locks("read") else None
            self._transfer = SaveTransfer(profile, self._content, shared, self._faults)
        elif self._received is not None:
            shared = self._shared if profile.locks("write") else None
            self._transfer = LoadTransfer(profile, self._content, shared, self._faults, self._received)
            self._config_loaded = False
        else:
            raise Refusal("a source's device cannot load state")
        return self._transfer

    def _end_transfer(self) -> None:
        if self._transfer is not None:
            self._transfer.cancel()
            self._moved = self._transfer.offset
            self._transfer = None
