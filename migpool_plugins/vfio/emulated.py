"""The emulated VFIO device as migpool sees it: :class:`migpool.device.Device` on top of the device process.

Which call moves which state (see :mod:`migpool_plugins.vfio.state` for what the states mean)::

    source       save_setup  RUNNING -> PRE_COPY       destination   load_setup   RUNNING -> RESUMING
                 stop        PRE_COPY -> STOP_COPY                   load_config  (the config)
                 resume      any -> RUNNING                          start        RESUMING -> RUNNING
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

from migpool.device import Device, DeviceContext, DeviceError, Pending, Side, StateCosts
from migpool_plugins.vfio.client import DeviceClient
from migpool_plugins.vfio.options import DeviceSettings, parse_options
from migpool_plugins.vfio.process import DeviceProcess

SETUP_LIMIT = 60.0
"""Seconds that making the state may take: 64 MiB take a tenth of a second, the largest allowed state some twenty."""


def open_devices(context: DeviceContext) -> list[Device]:
    """Start a device process and return its devices; see :func:`migpool_plugins.vfio.devices`."""
    settings = parse_options(context)
    process = DeviceProcess(len(settings))
    made: list[Device] = []
    try:
        for device in settings:
            connection = process.attach(device, context.side, context.seed)
            made.append(EmulatedVfioDevice(process, connection, device, context.side, settings))
    except BaseException:
        for device_made in made:
            device_made.close()
        process.end()
        raise
    return made


class EmulatedVfioDevice(Device):
    """One device of the device process.

    Arguments:
        process: the process, for its end.
        connection: this device's control connection.
        settings: name, profile and fault.
        side: which end of the migration this is.
        siblings: the settings of all devices of the entry, which may have to be waited for under a shared lock.
    """

    instance_id = 0
    version = 1
    iterable = True
    note = "emulated VFIO"

    def __init__(
        self,
        process: DeviceProcess,
        connection: socket.socket,
        settings: DeviceSettings,
        side: Side,
        siblings: Sequence[DeviceSettings],
    ) -> None:
        self.idstr = settings.idstr
        self.profile = settings.profile
        self.process = process
        self._side = side
        self._limit = settings.time_limit
        self._short_read = settings.fault.at if settings.fault and settings.fault.kind == "short-read" else 0
        self._saved = 0
        self._saving_ended = False
        self._lock_name = f"{siblings[0].idstr} shared lock"
        longest = sum(max(s.profile.read_cost(s.profile.chunk), s.profile.write_cost(s.profile.size)) for s in siblings)
        self._client = DeviceClient(process, connection, settings.time_limit + longest)

    # ------------------------------------------------------------------ source

    def save_setup(self) -> bytes:
        """Wait until the state has been made, open the data descriptor, and describe the device for the other side."""
        self._client.request("ready", SETUP_LIMIT)
        self._open("pre-copy")
        return json.dumps({"size": self.profile.size, "config_size": self.profile.config_size}).encode()

    def pending(self) -> Pending:
        """All of the state, until the machine stops: there is nothing to pre-copy."""
        return Pending(precopy=0, stopcopy=self.profile.size - self._saved)

    def stop(self) -> None:
        """Stop the device; takes the profile's time. The device begins its first chunk without waiting for a read."""
        self._client.request("set-state", self._limit + self.profile.stop_time, state="stop-copy")
        self._saved = 0
        self._saving_ended = False

    def save_state(self, buffer: memoryview) -> int:
        """Read the next part of the state, at most a chunk of the profile, straight into ``buffer``."""
        data = self._client.data
        if data is None:
            self._client.check()
            raise DeviceError("the device has not been stopped: there is no state to read yet")
        length = min(len(buffer), self.profile.chunk)
        if self._saved < self._short_read < self._saved + length:
            length, self._short_read = self._short_read - self._saved, 0
        count = self._client.read(data, buffer, length)
        self._saved += count
        return count or self._finish_saving()

    def _finish_saving(self) -> int:
        """The data has ended: ask whether that was the end of the state or an error."""
        if not self._saving_ended:
            sent = self._client.request("finish-save", self._limit).fields["sent"]
            if sent != self._saved:
                raise DeviceError(f"{sent} bytes of state were put in and {self._saved} read")
            self._saving_ended = True
        return 0

    def save_config(self) -> bytes:
        """Return the config: the digest of the state, and made-up content; takes the profile's time."""
        return self._client.request("save-config", self._limit + self.profile.save_config_time).payload

    def resume(self) -> None:
        """Run again at the source; the state is what it was, and can be saved from the beginning. Takes back an abort.

        As with a real device, a stop that has begun is finished first.
        """
        self._client.renew()
        self._saved = 0
        self._saving_ended = False
        begun = self.profile.stop_time + self.profile.save_config_time
        self._client.request("reset", self._client.data_limit + begun)

    # ------------------------------------------------------------- destination

    def load_setup(self, data: bytes) -> None:
        """Wait until the state has been made and open the data descriptor.

        Arguments:
            data: what the source's ``save_setup`` returned; empty skips the comparison of the two devices' sizes.
        """
        if data:
            self._compare(data)
        self._client.request("ready", SETUP_LIMIT)
        self._open("resuming")

    def _compare(self, data: bytes) -> None:
        try:
            theirs = json.loads(data)
        except ValueError:
            theirs = None
        if not isinstance(theirs, dict):
            raise DeviceError("the source's device is not an emulated VFIO device: give both sides the same devices")
        for key, ours in (("size", self.profile.size), ("config_size", self.profile.config_size)):
            if theirs.get(key) != ours:
                raise DeviceError(
                    f"{key} is {theirs.get(key)!r} at the source and {ours} here: give both sides the same options"
                )

    def load_state(self, data: memoryview) -> None:
        """Write a part of the state; returns when the device has taken it, at its own pace, and found it right."""
        descriptor = self._client.data
        if descriptor is None:
            self._client.check()
            raise DeviceError("the device has not been set up to load: there is no descriptor to write to")
        self._client.write(descriptor, data)

    def load_config(self, data: bytes) -> None:
        """Load the config; takes the profile's time. Fails unless all state has been loaded and is the one saved."""
        self._client.request("load-config", self._limit + self.profile.load_config_time, data)

    def start(self) -> None:
        """Let the loaded device run."""
        self._client.request("set-state", self._limit, state="running")

    # -------------------------------------------------------------------- both

    def fingerprint(self) -> bytes:
        """Return the SHA-256 of what was really read from, or written to, the device; computed now."""
        return self._client.request("fingerprint", SETUP_LIMIT).payload

    def verify(self) -> None:
        """Compare everything that was received with what the state must be, once more and as a whole."""
        self._client.request("verify", SETUP_LIMIT)

    def abort(self) -> None:
        """End any wait at once. What the device process has begun by itself, a stop say, it finishes."""
        self._client.abort()

    def close(self) -> None:
        """Close the device; the last device of the entry ends the device process and waits for its end."""
        self._client.close()

    def poll_fd(self) -> int | None:
        """The data descriptor, from set-up on, if the profile says so: readable when a chunk or the end is there."""
        data = self._client.data
        return data.fileno() if self.profile.pollable and self._side == "source" and data is not None else None

    def costs(self) -> StateCosts:
        """What the profile makes of this device's work."""
        profile = self.profile
        last = profile.size - (profile.chunks - 1) * profile.chunk
        whole = profile.chunks - 1
        return StateCosts(
            stop=profile.stop_time,
            read=whole * profile.read_cost(profile.chunk) + profile.read_cost(last),
            write_chunk=profile.write_cost(min(profile.chunk, profile.size)),
            write=whole * profile.write_cost(profile.chunk) + profile.write_cost(last),
            save_config=profile.save_config_time,
            load_config=profile.load_config_time,
            shared_lock=self._lock_name if profile.locks("read" if self._side == "source" else "write") else "",
        )

    def record(self, last: int = 1000) -> list[tuple[float, float]]:
        """Return when the device process worked on each of the last chunks: begin and end, CLOCK_MONOTONIC, seconds.

        With a shared lock these are the times in which the device held it.
        """
        came = self._client.request("record", self._limit, last=last).fields["record"]
        assert isinstance(came, list)
        return [(begin, end) for begin, end in came]

    def _open(self, state: str) -> None:
        self._client.request("set-state", self._limit, state=state)
        if self._client.data is None:
            raise DeviceError(f"the device went to {state} without a data descriptor")
