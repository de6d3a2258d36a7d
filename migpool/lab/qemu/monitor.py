"""The monitor (QMP) of a running QEMU: commands with a time limit, and errors that fit a line."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from migpool.device import Side
from migpool.errors import MigpoolError, UsageError

try:
    from qemu.qmp import ConnectError, EventListener, ExecuteError, QMPClient, QMPError
except ImportError as error:
    raise UsageError("migpool observe needs the library qemu.qmp: pip install 'migpool[observe]'") from error

ANSWERS: Final = 10.0
"""Seconds that an answer may take: the main loop of a QEMU that loads a large machine answers nothing meanwhile."""
CLOSES: Final = 2.0
OLDEST: Final = (8, 2)
MOST_EVENTS: Final = 10_000

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)  # whatever it says there comes as an exception, too


class Refused(MigpoolError):
    """QEMU answered a command with an error."""


class Monitor:
    """An open monitor.

    Attributes:
        side: whose it is.
        version: QEMU's, three numbers.
        events: what QEMU has told of by itself so far, the first ``MOST_EVENTS``.
    """

    def __init__(self, side: Side, client: QMPClient) -> None:
        self.side = side
        self._client = client
        self.events: list[dict[str, object]] = []
        self._heard = asyncio.Event()
        greeting = client.greeting
        numbers = greeting.QMP.version.get("qemu") if greeting is not None else None
        assert isinstance(numbers, dict)
        self.version = (int(numbers["major"]), int(numbers["minor"]), int(numbers["micro"]))

    async def execute(self, command: str, arguments: Mapping[str, JsonValue] | None = None) -> JsonValue:
        """Execute a command and return what it returns.

        Raises:
            Refused: QEMU says why not.
            MigpoolError: it does not answer, or is gone.
        """
        try:
            async with asyncio.timeout(ANSWERS):
                found: JsonValue = await self._client.execute(command, dict(arguments or {}))  # type: ignore[assignment]
        except ExecuteError as error:
            raise Refused(f"the {self.side}'s QEMU refuses {command}: {' '.join(str(error).split())}") from None
        except TimeoutError:
            raise MigpoolError(
                f"the {self.side}'s QEMU does not answer {command} for {ANSWERS:g} s: does it hang, or is it stopped?"
            ) from None
        except (QMPError, OSError, EOFError):
            raise MigpoolError(f"the {self.side}'s QEMU closed its monitor at {command}: it has ended") from None
        return found

    async def table(self, command: str, arguments: Mapping[str, JsonValue] | None = None) -> dict[str, JsonValue]:
        """The same, of a command that returns an object."""
        found = await self.execute(command, arguments)
        return found if isinstance(found, dict) else {}

    async def rows(self, command: str, arguments: Mapping[str, JsonValue] | None = None) -> list[dict[str, JsonValue]]:
        """The same, of a command that returns a list of objects."""
        found = await self.execute(command, arguments)
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    async def human(self, line: str) -> str:
        """Execute a line of the human monitor, and return what it prints."""
        return str(await self.execute("human-monitor-command", {"command-line": line})).strip()

    async def take_events(self, listener: EventListener) -> None:
        """Keep events as they come, until cancelled."""
        async for message in listener:
            if len(self.events) < MOST_EVENTS:
                self.events.append(dict(message))
            self._heard.set()

    async def hears(self, limit: float) -> None:
        """Wait until QEMU has told of something by itself, or has ended, ``limit`` seconds at the most."""
        waits = [asyncio.create_task(self._heard.wait()), asyncio.create_task(self._client.runstate_changed())]
        try:
            await asyncio.wait(waits, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._heard.clear()
            for one in waits:
                one.cancel()
            await asyncio.wait(waits)


@asynccontextmanager
async def opened(side: Side, address: str) -> AsyncIterator[Monitor]:
    """A connection to a QEMU's monitor.

    Arguments:
        address: a socket's path, or ``tcp:HOST:PORT``.

    Raises:
        UsageError: there is none, or the QEMU is too old.
        MigpoolError: nobody answers.
    """
    client = QMPClient(side)
    asyncio.get_running_loop().set_exception_handler(_told_already)
    await _connect(client, side, address)
    monitor = Monitor(side, client)
    listener = EventListener()
    try:
        if monitor.version < OLDEST:
            raise UsageError(
                f"the {side}'s QEMU is {'.'.join(map(str, monitor.version))}: only {OLDEST[0]}.{OLDEST[1]} and later "
                "tell where the downtime goes"
            )
        with client.listen(listener):
            taking = asyncio.create_task(monitor.take_events(listener))
            try:
                yield monitor
            finally:
                taking.cancel()
                await asyncio.wait([taking])
    finally:
        with suppress(QMPError, OSError, EOFError):  # what ended the connection is raised here again
            async with asyncio.timeout(CLOSES):
                await client.disconnect()


def _told_already(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the library leaves behind unasked for comes as an exception of what was asked, too."""
    if not isinstance(context.get("exception"), QMPError):
        loop.default_exception_handler(context)


async def _connect(client: QMPClient, side: Side, address: str) -> None:
    where: str | tuple[str, int] = address
    if address.startswith("tcp:"):
        host, _, port = address.removeprefix("tcp:").rpartition(":")
        if not host or not port.isdecimal() or int(port) > 0xFFFF:
            raise UsageError(f"{address} is no address of a monitor: give a socket's path, or tcp:HOST:PORT")
        where = (host.strip("[]"), int(port))
    elif not Path(address).is_socket():
        what = "no socket" if Path(address).exists() else "not there"
        raise UsageError(
            f"{address} is {what}: start the {side}'s QEMU with "
            f"-qmp unix:{address},server=on,wait=off, or name its socket"
        )
    try:
        async with asyncio.timeout(ANSWERS):
            await client.connect(where)
    except TimeoutError:
        raise MigpoolError(
            f"{address} takes the connection and says nothing for {ANSWERS:g} s: a monitor serves one client at a "
            f"time, and another has this one, or the {side}'s QEMU hangs; give QEMU a second -qmp"
        ) from None
    except ConnectError as error:
        cause = error.exc
        if isinstance(cause, OSError):
            reason = (os.strerror(cause.errno) if cause.errno else str(cause)).lower()
            raise MigpoolError(f"{address}: {reason}: no QEMU has its monitor there that this user may use") from None
        raise MigpoolError(f"{address} speaks no QMP: give the {side}'s -qmp socket, and not another") from None
