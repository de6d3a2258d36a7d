"""What the runs without a migration share: channels, threads, and the clock."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence

from benchmarks.datapath.failure import BenchmarkFailure
from migpool.migration.settings import Settings
from migpool.transport.address import Address
from migpool.transport.listener import listen
from migpool.transport.sockets import connect, prepare

__all__ = ["accepted", "connected", "idle", "together"]


def connected(settings: Settings, address: Address, stack: contextlib.ExitStack) -> list[socket.socket]:
    """The source's channels; ``stack`` closes them."""
    deadline = time.monotonic() + settings.peer_limit
    channels = []
    for _ in range(settings.channels):
        channel = stack.enter_context(connect(address, deadline, settings.peer_limit))
        prepare(channel, limit=settings.peer_limit, tick=settings.tick, congestion=settings.congestion)
        channels.append(channel)
    return channels


def accepted(
    settings: Settings, address: Address, listening: Callable[[Address], None], stack: contextlib.ExitStack
) -> list[socket.socket]:
    """The destination's channels; ``stack`` closes them.

    Arguments:
        listening: called with the address that the source can connect to.
    """
    listener, bound = listen(address, settings.channels)
    channels = []
    with listener:
        listener.settimeout(settings.accept_limit)
        listening(bound)
        for _ in range(settings.channels):
            channel = stack.enter_context(listener.accept()[0])
            channel.settimeout(None)
            prepare(channel, limit=settings.peer_limit, tick=settings.peer_limit, congestion=settings.congestion)
            channels.append(channel)
    return channels


def idle() -> None:
    """A read has waited for the limit.

    Raises:
        BenchmarkFailure: always.
    """
    raise BenchmarkFailure("nothing has come from the source")


def together(bodies: Sequence[Callable[[], None]]) -> tuple[int, int]:
    """Run each on a thread of its own, wait for all, and raise the first error.

    Returns:
        CLOCK_MONOTONIC in nanoseconds before the first began and after the last ended.
    """
    errors: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 -- it is raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(body,)) for body in bodies]
    began = time.monotonic_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return began, time.monotonic_ns()
