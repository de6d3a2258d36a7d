"""How one migration is carried out: what both ends must be told beside the machine itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from migpool.device import ConfigChannel
from migpool.units import MIB

ConfigLoad: TypeAlias = Literal["as-loaded", "after-iterables"]
"""When a destination loads the config of an iterable device."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One side's settings.

    Arguments:
        channels: how many multifd channels there are; the same at both ends.
        uuid: what the source's channels say of the machine; empty for a number of this migration's own.
        chunk: the longest chunk in bytes. The destination may ask for shorter ones, so that its budget suffices.
        budget: how many bytes of chunks the destination may hold.
        device_budget: how many of them may be one iterable device's; 0 for no limit of its own.
        peer_limit: how long the peer may show no progress, in seconds.
        connect_limit: how long the source looks for the destination, and how long a source that has come may take to
            open all its connections, in seconds.
        accept_limit: how long a destination waits for a source to come, in seconds.
        congestion: the TCP congestion control; empty leaves it to the system, and is cubic on loopback.
        credits: whether the source offers credits. Without them the budget is a limit that a migration can fail on.
        splice: whether state moves by splice(2) from and to a device that has a descriptor for it.
        switch_interval: the interpreter's switch interval while the migration runs, in seconds: another thread that
            computes in the same process would otherwise take 5 ms of each turn. 0 leaves it alone.
        downtime_limit: iterable devices iterate until what is left takes at most this long, in seconds.
        rounds: the most rounds of iteration before the switchover. A machine with memory does not switch over then, if
            what is left would take longer than ``downtime_limit``: the migration fails.
        max_bandwidth: how many bytes of memory are sent in a second while the machine runs; 0 for no limit.
        auto_converge: whether vCPUs are slowed down when they write memory faster than it can be sent.
        together: whether memory, iterable devices and the rest are saved all at once after the machine has stopped, or
            one after the other.
        vmsd: where the config of a device that is not iterable crosses, if the device does not say. Without multifd
            channels there is but the main channel.
        live: what iterable devices give while the machine runs goes over this. Without multifd channels there is but
            the main channel.
        in_flight: how many jobs save an iterable device at once, if the device does not say: while one sends a chunk,
            another reads the next. Without multifd channels there is one.
        config_load: when the destination loads the config of an iterable device: as soon as that device has all its
            state, or only after every iterable device has.
        tls: the directory of this end's credentials; empty for connections that are not encrypted. Nothing is spliced
            then.
        tls_hostname: what the destination's certificate must be for, if not for the host that is connected to.
        insecure: whether to listen where strangers can connect, and take whatever process is at the other end.
        exchanges: how many PINGs the source sends before the switchover, to relate the two hosts' clocks.
    """

    channels: int = 2
    uuid: str = ""
    chunk: int = MIB
    budget: int = 64 * MIB
    device_budget: int = 0
    peer_limit: float = 30.0
    connect_limit: float = 10.0
    accept_limit: float = 300.0
    congestion: str = ""
    credits: bool = True
    splice: bool = False
    switch_interval: float = 1e-4
    downtime_limit: float = 0.3
    rounds: int = 30
    max_bandwidth: int = 0
    auto_converge: bool = True
    together: bool = True
    vmsd: ConfigChannel = "main-channel"
    live: ConfigChannel = "main-channel"
    in_flight: int = 1
    config_load: ConfigLoad = "as-loaded"
    tls: str = ""
    tls_hostname: str = ""
    insecure: bool = False
    exchanges: int = 0

    @property
    def tick(self) -> float:
        """How often a wait on the peer looks whether it should go on, in seconds."""
        return min(0.5, self.peer_limit / 8)
