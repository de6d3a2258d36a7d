"""The class of a device; when each method is called, and on which thread, is said in the package's docstring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Literal, TypeAlias

from migpool.device.figures import Pending, StateCosts
from migpool.errors import DeviceError

ConfigLock: TypeAlias = Literal["big", "own", "none"]
"""What must be held while a device's config is saved or loaded."""
ConfigChannel: TypeAlias = Literal["main-channel", "multifd"]
"""Where the config of a device that is not iterable crosses."""


class Priority(IntEnum):
    """In which order configs are saved and loaded: the highest first. The names are QEMU's."""

    LOW = 1
    DEFAULT = 2
    IOMMU = 3
    """Whatever reaches into memory goes through it."""
    PCI_BUS = 4
    VIRTIO_MEM = 5
    """Says which of the memory there is."""
    APIC = 6
    GICV3_ITS = 7
    GICV3 = 8


class Device(ABC):
    """One device of the machine.

    Only ``save_config`` and ``load_config`` must be written; an iterable device sets ``iterable`` and adds
    ``save_state`` and ``load_state``. Raise :class:`DeviceError` with one line for what goes wrong; migpool adds
    which device and chunk.

    Attributes:
        idstr: the device's name in the stream, at most 255 bytes of ASCII; the same at both ends.
        instance_id: tells devices of one ``idstr`` apart; 0 to 2**32 - 1.
        version: the version of the state's layout, written to the stream; a destination sees it in ``check_version``.
        iterable: whether the device has state for ``save_state``.
        in_flight: for an iterable device, how many jobs save it at once: while one sends a chunk, another calls
            ``save_state`` for the next, on another thread, but never two of them at the same time. ``None`` leaves it
            to the scenario.
        config_job: for a device that is not iterable: whether its config is saved as a job of its own, by the threading
            model, while other devices are saved. Its section still goes out in the machine's order.
        config_channel: for a device that is not iterable, where its config crosses: as a section of the main channel,
            or as a job's packets over the multifd channels; ``None`` leaves it to the scenario. A device that must stay
            in the main channel's order, since it is set up early or loaded first, says ``"main-channel"``. So does an
            iterable one all of whose state crosses there, as a QEMU has it with x-migration-multifd-transfer=off.
        after: for a device that is not iterable, the names (``idstr``, with ``#`` and the instance id if that is not 0)
            of the devices whose config must be loaded before its own; ``"ram"`` for one whose ``load_config`` reads the
            guest's memory. Names of devices that the machine does not have mean nothing.
        priority: for a device that is not iterable: those of a higher one are saved and loaded first, as far as
            ``after`` allows.
        early: for a device that is not iterable: its config is a section of the main channel that is saved while the
            machine still runs, before the memory, and loaded as soon as it comes.
        optional: for a device that is not iterable: there may be no config to send, see :meth:`needed`. It crosses on
            the main channel.
        save_lock: what ``save_config`` needs: the big lock, which every other device's may need too; the device's own,
            which keeps its calls of ``save_config`` and ``load_config`` apart; or none, if two calls of one device may
            be at the same time, too.
        load_lock: the same of ``load_config``.
        note: what a reader of the result should know of how this device is made ("KVM", "Unicorn"); may be empty.
        remark: what there is to say of it after ``verify`` ("stood still for 31 ms"), in a few words; may be empty.
        peer_to_peer: for a device that reaches into other devices by itself (DMA), whether it can be quiet before it
            stops; ``None`` for one that does not. A machine in which one of several such devices cannot is refused.
        comparable: whether there is a way to tell what state the device has (``fingerprint``). ``False`` where only
            hardware, or somebody else's process, knows: a migration of it is completed, and not compared.
    """

    idstr: str
    instance_id: int = 0
    version: int = 1
    iterable: bool = False
    in_flight: int | None = None
    config_job: bool = False
    config_channel: ConfigChannel | None = None
    after: Sequence[str] = ()
    priority: Priority = Priority.DEFAULT
    early: bool = False
    optional: bool = False
    save_lock: ConfigLock = "big"
    load_lock: ConfigLock = "big"
    note: str = ""
    remark: str = ""
    peer_to_peer: bool | None = None
    comparable: bool = True

    # ---------------------------------------------------------------- source

    def save_setup(self) -> bytes:
        """Prepare to save, and return what the destination needs for ``load_setup``.

        The machine runs. May block for as long as the set-up takes. Called once, before anything else.
        """
        return b""

    def pending(self) -> Pending:
        """Say how much is left to save. Must not block: it is asked often while the machine runs."""
        return Pending()

    def iterate(self, buffer: memoryview) -> int:
        """Save some state while the machine runs; only called while ``pending().precopy`` is over 0.

        Arguments:
            buffer: where to put it; page-aligned, one chunk long, writable.

        Returns:
            How many bytes of ``buffer`` were filled; 0 when there is nothing to save just now.
        """
        return 0

    def quiesce(self) -> None:
        """Begin nothing towards other devices any more, but still answer them: the first half of stopping.

        May block. Called for every device before ``stop`` is called for any, so that no device is spoken to by a peer
        after it has stopped.
        """
        return None

    def stop(self) -> None:
        """Stop the device's part of the machine: the downtime has begun. Returns when it stands still.

        May block. Called for one device after the other, in the machine's order.
        """
        return None

    def save_state(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with the next part of the state of the stopped device.

        May block on the device for as long as it takes; ``abort`` must then end the wait.

        Arguments:
            buffer: where to put it; page-aligned, one chunk long, writable; valid only during the call.

        Returns:
            How many bytes were filled. Less than the whole buffer is allowed; 0 means that all state has been saved.
        """
        raise DeviceError("the device says it is iterable, but has no save_state")

    @abstractmethod
    def save_config(self) -> bytes:
        """Return the device's configuration: small state that is saved last and loaded last, under ``save_lock``.

        Should not block for long: every other device's config waits for the same lock, if that is the big one.
        """

    def needed(self) -> bool:
        """Whether there is a config to send; asked right before ``save_config``, of an ``optional`` device.

        If not, its section is left out: the device at the destination stays as it was made.
        """
        return True

    def wake(self) -> None:
        """Answer other devices, but begin nothing towards them yet: the first half of running again.

        May block. Called for every device before ``start`` (at the destination) or ``resume`` (at the source, after
        ``abort`` too, and whether or not ``quiesce`` was called) is called for any. Takes back an ``abort``.

        Raises:
            DeviceBusy: at the source only: the device does not answer yet; it is resumed after the others.
        """
        return None

    def resume(self) -> None:
        """The migration failed or was cancelled: the device runs at the source again, as if nothing had been.

        Called whether or not ``stop`` was, also after ``abort``, and must be harmless in every case.
        """
        return None

    # ----------------------------------------------------------- destination

    def load_setup(self, data: bytes) -> None:
        """Prepare to load, with what the source's ``save_setup`` returned. May block."""
        return None

    def check_version(self, version: int) -> None:
        """Refuse a state that this device cannot load, by raising :class:`DeviceError`.

        Arguments:
            version: the ``version`` of the source's device.
        """
        if version > self.version:
            raise DeviceError(
                f"the state has version {version}, this device loads up to {self.version}: update the destination"
            )

    def load_state(self, data: memoryview) -> None:
        """Load the next part of the state, in the order in which it was saved, cut as it was saved.

        May block on the device for as long as it takes; ``abort`` must then end the wait. Returns when the device has
        taken all of it.

        Arguments:
            data: what one call of ``save_state`` or ``iterate`` filled; valid only during the call.
        """
        raise DeviceError("state has come for the device, but it has no load_state")

    @abstractmethod
    def load_config(self, data: bytes) -> None:
        """Load what ``save_config`` returned. All state has been loaded by then; ``load_lock`` is held."""

    def start(self) -> None:
        """The machine runs at the destination from now on. Called when every device has been loaded.

        One after the other, in the reverse of the order of ``stop``. What can fail belongs into ``load_config``: after
        an error here those that were started before are stopped again (``wake``, ``quiesce``, ``stop``), and the
        machine runs on at the source.
        """
        return None

    # ----------------------------------------------------------------- both

    def fingerprint(self) -> bytes | None:
        """Return a digest of the state, to prove that what arrived is what left; ``None`` if there is no such thing.

        Called at the source after ``save_config`` and at the destination after ``start``, outside the downtime. The two
        must be equal for equal state.
        """
        return None

    def verify(self) -> None:
        """Check at the destination, after ``start``, that the device goes on as it should.

        Raises:
            VerificationError: it does not.
        """
        return None

    def abort(self) -> None:
        """End any wait in another call of this device at once, and make later ones fail with :class:`DeviceError`,
        all but ``wake``, ``resume`` and ``close``.

        Called from another thread, at any time, once or more, when the migration is cancelled or has failed. Must not
        block.
        """
        return None

    def close(self) -> None:
        """Give back everything: descriptors, threads, processes. Called once, last, also after an error."""
        return None

    # ------------------------------------------------------- for exact formats

    def measure_config(self, data: memoryview) -> int | None:
        """Say how long the config at the start of ``data`` is, for a device whose config has a format of its own.

        A section of the main channel carries no length. By default migpool puts one before the config. A device whose
        bytes must stand in the stream exactly as they are overrides :meth:`exact_config` to return true, and this.

        Arguments:
            data: the bytes that have come so far, beginning with the config's first.

        Returns:
            The length in bytes, or ``None`` if more must come before it is known.

        Raises:
            DeviceError: the bytes are no config of this device.
        """
        raise DeviceError("the device asks for an exact config but cannot measure one")

    def exact_config(self) -> bool:
        """Whether the config stands in its section without a length before it; see :meth:`measure_config`."""
        return False

    def describe_config(self) -> Mapping[str, object] | None:
        """Return the config's description for the JSON at the stream's end: ``vmsd_name``, ``version`` and ``fields``.

        With ``None`` the stream describes nothing of this device.
        """
        return None

    # ------------------------------------------------------------ for pre-copy

    def throttle(self, share: float) -> None:
        """Slow the device's part of the machine down, so that it writes less memory in a second.

        Called on the migration's thread while the machine runs, when memory is written faster than it can be sent. A
        vCPU sleeps for this share of the time; most other devices have nothing to do. ``resume`` comes after a failure
        as ever, and the throttle has been taken away by then.

        Arguments:
            share: of the time, from 0 (not at all, which takes it away) to below 1.
        """
        return None

    # -------------------------------------------------- for models and reports

    def poll_fd(self) -> int | None:
        """A descriptor that a selector can wait on before ``save_state``; ``None`` if there is no such thing."""
        return None

    def splice_fd(self) -> int | None:
        """A descriptor from which the kernel can move the state's pages without a copy, or into which it can.

        ``None``: there is no such descriptor. Asked for with the setting ``splice`` only, before each chunk.

        At the source the migration then calls splice(2) on it until that returns 0, instead of ``save_state``. The
        state must not change before the destination has it: pages are passed on by reference.

        At the destination the next chunk is moved into it where that is possible, and given to ``load_state`` where it
        is not, in turns: so both must go by the descriptor's own offset. ``abort`` must end a wait in it, too.
        """
        return None

    def costs(self) -> StateCosts | None:
        """What the device's own work takes by its nature, if the device knows (an emulated one does)."""
        return None
