"""What ``migpool vfio serve`` does, after its command line has been read."""

from __future__ import annotations

import signal
import tomllib
from collections.abc import Sequence

import typer

from migpool.device import OptionValue
from migpool.errors import UsageError
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
        UsageError: an option cannot be read.
        DeviceError: an option is wrong, or a socket cannot be made.
    """
    ending = {signal.SIGINT, signal.SIGTERM}
    # Before any thread is started, so that all of them have it blocked and only sigwait sees it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        served = ServedDevices(
            {**_table(options), "profile": profile}, count, seed, path, lambda text: typer.echo(text, err=True)
        )
        try:
            served.start()
            for name, where in zip(served.names, served.paths, strict=True):
                typer.echo(f"{name} listens at {where}")
            signal.sigwait(ending)
        finally:
            served.stop()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _table(options: Sequence[str]) -> dict[str, OptionValue]:
    table: dict[str, OptionValue] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--option {text!r} is no KEY=VALUE: write for example -o size=1MiB")
        try:
            table[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[key.strip()] = value.strip()
    return table
