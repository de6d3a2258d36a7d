"""Devices whose state is described: those of a captured machine, and a base class for authors.

A section of the main channel carries no length, and the bytes of a described device must stand in it exactly as real
streams have them. So these devices answer ``exact_config`` with true and measure their config by their description.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from migpool.device import Device, DeviceError, Side
from migpool.vmsd.access import Record
from migpool.vmsd.codec import Entry, Shown
from migpool.vmsd.description import Description
from migpool.vmsd.jsonform import section_structure
from migpool_plugins.vmsd.capture import CapturedSection
from migpool_plugins.vmsd.needs import UNKNOWN, Needs

__all__ = ["CapturedDevice", "DescribedDevice"]


class _Abortable(Device):
    """Nothing in here waits, so aborting only makes later calls fail, until the device wakes."""

    _aborted = False

    def abort(self) -> None:
        self._aborted = True

    def wake(self) -> None:
        self._aborted = False

    def _go_on(self) -> None:
        if self._aborted:
            raise DeviceError("the migration of this device was aborted")

    def exact_config(self) -> bool:
        return True


class CapturedDevice(_Abortable):
    """A device as it was found in a recorded stream, with the description that the stream carries of it.

    At the source it holds the captured values, decoded into fields; at the destination it knows only the description,
    until ``load_config``. A device registered in the old style, which streams do not describe, holds one field
    ``data``.

    The description says exactly what was in that stream: a field whose condition did not hold then is not known here,
    an array counted by a field has the length it had then. So a destination loads what a source made from the same
    capture sends, with any values. Subsections that the capture mentions may be absent; others are an error.

    Arguments:
        section: the captured section.
        side: which end of the migration this is.
        needs: what is known of such devices.
        after: names of the devices that it is loaded after.

    Attributes:
        config_time: for how many seconds ``save_config`` and ``load_config`` wait besides.
        state: the values by field name; ``None`` at the destination before they have come. See
            :data:`~migpool.vmsd.access.Record`.
        description: how they stand in the stream.

    Raises:
        DescriptionError: the stream's description contradicts itself.
        DeviceError: the captured bytes do not fit their description.
    """

    config_time = 0.0

    def __init__(self, section: CapturedSection, side: Side, needs: Needs = UNKNOWN, after: Sequence[str] = ()) -> None:
        self.idstr = section.name
        self.instance_id = section.instance_id
        self.version = section.version
        self.note = "captured"
        self.save_lock, self.load_lock, self.config_channel = needs.save, needs.load, needs.channel
        self.early = needs.early
        self.after = after
        self.description = Description.from_structure(section_structure(section.entry, section.version))
        self.state: Record | None = None
        self._named = "vmsd_name" in section.entry
        if side == "source":
            self.state = self._decoded(section.payload)

    def save_config(self) -> bytes:
        """Encode the fields."""
        self._go_on()
        if self.config_time:
            time.sleep(self.config_time)
        return self.description.save(self._held())

    def check_version(self, version: int) -> None:
        """Refuse any version but the captured one: no other layout is known."""
        if version != self.version:
            raise DeviceError(f"the state has version {version}, the captured description is of version {self.version}")

    def load_config(self, data: bytes) -> None:
        """Decode the fields; on an error the device stays as it was."""
        self._go_on()
        if self.config_time:
            time.sleep(self.config_time)
        self.state = self._decoded(data)

    def fingerprint(self) -> bytes | None:
        """The SHA-256 of the fields, encoded again."""
        return None if self.state is None else hashlib.sha256(self.description.save(self.state)).digest()

    def measure_config(self, data: memoryview) -> int | None:
        """Walk the description over ``data``; what has a fixed size is stepped over."""
        self._go_on()
        return self.description.measure(data, {})

    def describe_config(self) -> Mapping[str, object] | None:
        """The JSON description of what ``save_config`` returns; one of the old style has no ``vmsd_name``."""
        if self.state is None:
            return None
        entry = self.description.describe(self.state)
        if self._named:
            return entry
        return {"size": len(self.description.save(self.state)), "fields": entry["fields"]}

    def show(self) -> Mapping[str, Shown]:
        """The values as a decoder prints them."""
        return self.description.show(self._held())

    def _decoded(self, data: bytes) -> Record:
        state: Record = {}
        self.description.load(state, data)
        return state

    def _held(self) -> Record:
        if self.state is None:
            raise DeviceError("no state has been loaded yet")
        return self.state


class DescribedDevice(_Abortable):
    """A device that declares its state instead of writing code to save and load it.

    A subclass sets :attr:`description`; from it come ``version``, ``priority``, ``early``, ``optional`` and ``needed``,
    ``idstr`` (unless the subclass or an instance sets its own), ``save_config``, ``load_config``, ``measure_config``,
    ``describe_config``, the version check, and a fingerprint: the SHA-256 of the config as it was saved or, at the
    destination, saved again right after loading.

    The fields are attributes of the device itself; override :meth:`described` to describe another object.

    Attributes:
        description: the state's description.
    """

    description: ClassVar[Description]

    _loading: int | None = None
    _digest: bytes | None = None
    _entry: Entry | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "description" in cls.__dict__:
            described = cls.description
            cls.version = described.version
            cls.priority, cls.early = described.priority, described.early
            cls.optional = described.needed is not None
            if "idstr" not in cls.__dict__:
                cls.idstr = described.name

    def described(self) -> object:
        """The object whose attributes are the fields."""
        return self

    def needed(self) -> bool:
        """Whether the description's ``needed`` says so."""
        return self.description.is_needed(self.described())

    def save_config(self) -> bytes:
        """Write the state by its description."""
        self._go_on()
        data, self._entry = self.description.save_described(self.described())
        self._digest = hashlib.sha256(data).digest()
        return data

    def check_version(self, version: int) -> None:
        """Refuse versions that the description cannot read; the others decide which fields to expect."""
        self.description.check_version(version)
        self._loading = version

    def load_config(self, data: bytes) -> None:
        """Read the state by its description, in the version that ``check_version`` was told (or its own).

        After an error the object may hold a part of the new state; it must not be run.
        """
        self._go_on()
        self.description.load(self.described(), data, self._loading)
        saved, self._entry = self.description.save_described(self.described())
        self._digest = hashlib.sha256(saved).digest()

    def fingerprint(self) -> bytes | None:
        """The SHA-256 of the state when it was saved or loaded last; ``None`` before that."""
        return self._digest

    def measure_config(self, data: memoryview) -> int | None:
        """Walk the description over ``data``, or load a copy of the object with it, hooks and all, if need be."""
        self._go_on()
        return self.description.measure(data, self.described(), self._loading)

    def describe_config(self) -> Mapping[str, object] | None:
        """The JSON description of what was saved last; before that, of what would be saved now."""
        if self._entry is None:
            self._entry = self.description.describe(self.described())
        return self._entry
