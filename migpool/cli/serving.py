"""What ``migpool vfio serve`` does, after its command line has been read."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import typer

from migpool.device import DeviceError, OptionValue
from migpool.errors import UsageError
from migpool.scenario.option_text import read_options
from migpool_plugins.vfio.vfiouser.port import ServedDevices

__all__ = ["run_server"]


def run_server(profile: str, path: str, count: int, seed: int, options: Sequence[str]) -> None:
    """Serve devices until a signal ends it.

    Arguments:
        profile: the devices' profile.
        path: the socket, or the beginning of the sockets.
        count: how many devices.
        seed: decides their state.
        options: each ``KEY=VALUE``, the value as in a scenario file, or text.

    Raises:
        UsageError: an option is wrong.
        DeviceError: a socket cannot be made.
    """
    ending = {signal.SIGINT, signal.SIGTERM}
    # Before any thread is started, so that all of them have it blocked and only sigwait sees it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        served = _made({**read_options(options), "profile": profile}, count, seed, path)
        try:
            served.start()
            for name, where in zip(served.names, served.paths, strict=True):
                typer.echo(f"{name} listens at {where}")
            signal.sigwait(ending)
        finally:
            served.stop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _made(options: dict[str, OptionValue], count: int, seed: int, path: str) -> ServedDevices:
    try:
        return ServedDevices(options, count, seed, path, lambda text: typer.echo(text, err=True))
    except DeviceError as error:
        raise UsageError(str(error)) from error
