"""A migration between two running QEMUs, observed through their monitors, and then explained by what they logged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import JsonValue, TypeAdapter

from migpool.device import Side
from migpool.errors import MigpoolError, UsageError
from migpool.lab.qemu.explain import Explained, explain
from migpool.lab.qemu.monitor import Monitor, Refused, opened
from migpool.lab.qemu.tracing import LIGHT, Log, traced
from migpool.units import format_rate, format_size

EVERY: Final = 0.25
"""Seconds between two looks at the migration while the source's machine runs."""
QUIET: Final = 5.0
"""The same while the machine stands still, or is loaded, and QEMU will tell of the end by itself: who asks meanwhile
takes the big lock and the main loop from the migration."""
ENDED: Final = frozenset({"completed", "failed", "cancelled"})
NOT_BEGUN: Final = frozenset({"", "none", "setup"})
_JSON: Final = TypeAdapter[JsonValue](JsonValue)
_BOTH: Final[tuple[Side, Side]] = ("source", "destination")


@dataclass(frozen=True, slots=True)
class Observation:
    """What is to be observed.

    Arguments:
        monitors: each side's socket; one side may be missing.
        directory: where the logs come to.
        logs: the files that a QEMU logs to already; the others are told to log to ``directory``.
        tracepoints: those to be switched on.
        uri: where to migrate to; empty: somebody else starts the migration.
        settings: capabilities ("on", "off") and parameters to be set at both sides before.
        limit: seconds within which the migration must have ended.
        told: is called with how the migration stands.
    """

    monitors: Mapping[Side, str]
    directory: Path
    logs: Mapping[Side, Path] = field(default_factory=dict)
    tracepoints: Sequence[str] = LIGHT
    uri: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    limit: float = 3600.0
    told: Callable[[str], None] = lambda _: None


async def observe(wanted: Observation) -> Explained:
    """Observe a migration from now to its end, and explain its downtime.

    Tracepoints and capabilities are as they were before when this returns or raises, as far as the QEMUs still answer.

    Raises:
        UsageError: it cannot be observed so: the message says what to change.
        MigpoolError: a QEMU does not answer, or the migration did not complete.
    """
    if wanted.uri and "source" not in wanted.monitors:
        raise UsageError("only with --source can the migration be started: leave out the address")
    if len(wanted.monitors) > len(set(wanted.monitors.values())):
        raise UsageError(f"{wanted.monitors['source']} is named twice: each side has a monitor of its own")
    async with AsyncExitStack() as stack:
        stack.enter_context(_giving_way())
        monitors: dict[Side, Monitor] = {}
        for side in _BOTH:
            if side in wanted.monitors:
                monitors[side] = await stack.enter_async_context(opened(side, wanted.monitors[side]))
        for monitor in monitors.values():
            await _is_its_side(monitor)
        before = {side: await _status(monitor) for side, monitor in monitors.items()}
        if wanted.uri:
            await _set_up(monitors, wanted.settings)
        tells = {side: await stack.enter_async_context(_events_on(monitor)) for side, monitor in monitors.items()}
        logs: dict[Side, Log] = {}
        for side, monitor in monitors.items():
            tracing = traced(monitor, wanted.tracepoints, wanted.logs.get(side), wanted.directory)
            logs[side] = await stack.enter_async_context(tracing)
        if wanted.uri:
            await _start(monitors, before, wanted.uri)
        try:
            async with asyncio.timeout(wanted.limit):
                begun = False
                for side, monitor in monitors.items():
                    await _completed(monitor, before[side], wanted.told, begun=begun, tells=tells[side])
                    begun = True
        except TimeoutError:
            raise MigpoolError(
                f"the migration did not end within the {wanted.limit:g} s of --limit, and goes on unobserved"
            ) from None
        ended = {side: await _status(monitor) for side, monitor in monitors.items()}
        said = {side: await _says(monitor, ended[side]) for side, monitor in monitors.items()}
    found = explain(*(log.copied(wanted.directory / f"{side}.log") for side, log in logs.items()))
    found.result.settings["monitors"] = {str(side): values for side, values in said.items()}
    versions = {".".join(map(str, monitor.version)) for monitor in monitors.values()}
    own = ended["source"].get("downtime") if "source" in ended else None
    remark = f"observed with QEMU {' and '.join(sorted(versions))}"
    found.result.runs[0].remarks.append(remark if own is None else f"{remark}, whose own downtime is {own} ms")
    return found


@contextmanager
def _giving_way() -> Iterator[None]:
    """Have this thread interrupt nobody when it wakes up: each event wakes it, and QEMU is on the processors then.

    Linux's policy SCHED_BATCH does that (sched(7)), and anybody may choose it and leave it again.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    none = os.sched_param(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, none)
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, none)


async def _is_its_side(monitor: Monitor) -> None:
    state = (await monitor.table("query-status")).get("status")
    incoming = state == "inmigrate"
    if incoming != (monitor.side == "destination"):
        is_ = "waits for a migration" if incoming else f"is {state}, and waits for no migration"
        raise UsageError(f"the {monitor.side}'s QEMU {is_}: is it the other side, or did it migrate already?")


async def _status(monitor: Monitor) -> dict[str, JsonValue]:
    return await monitor.table("query-migrate")


async def _set_up(monitors: Mapping[Side, Monitor], settings: Mapping[str, str]) -> None:
    """Set capabilities and parameters at both sides.

    Raises:
        UsageError: QEMU knows none of this name, or does not take the value.
    """
    for side, monitor in monitors.items():
        capabilities = {str(row["capability"]) for row in await monitor.rows("query-migrate-capabilities")}
        parameters = await monitor.table("query-migrate-parameters")
        for name, value in settings.items():
            if name in capabilities:
                if value not in ("on", "off"):
                    raise UsageError(f"{name}={value}: a capability is on or off")
                await _wanted(monitor, name, _capability(name, on=value == "on"))
            elif name in parameters or side == "destination":
                await _wanted(monitor, name, ("migrate-set-parameters", {name: _typed(value, parameters.get(name))}))
            else:
                raise UsageError(f"{name}: the {side}'s QEMU has no capability and no parameter of this name")


async def _wanted(monitor: Monitor, name: str, command: tuple[str, dict[str, JsonValue]]) -> None:
    try:
        await monitor.execute(*command)
    except Refused as error:
        raise UsageError(f"{name}: {error}") from None


def _capability(name: str, *, on: bool) -> tuple[str, dict[str, JsonValue]]:
    return "migrate-set-capabilities", {"capabilities": [{"capability": name, "state": on}]}


def _typed(value: str, now: JsonValue) -> JsonValue:
    """The value as the type that the parameter has now."""
    if isinstance(now, bool):
        return {"on": True, "off": False}.get(value, value)
    return int(value) if not isinstance(now, str) and value.isdecimal() else value


@asynccontextmanager
async def _events_on(monitor: Monitor) -> AsyncIterator[bool]:
    """Have the migration's events told, and leave the capability as it was; whether they will be told."""
    capabilities = await monitor.rows("query-migrate-capabilities")
    changed = False
    if {"capability": "events", "state": False} in capabilities:
        with suppress(Refused):  # a migration is under way
            await monitor.execute(*_capability("events", on=True))
            changed = True
    try:
        yield changed or {"capability": "events", "state": True} in capabilities
    finally:
        if changed:
            with suppress(MigpoolError):
                await monitor.execute(*_capability("events", on=False))


async def _start(monitors: Mapping[Side, Monitor], before: Mapping[Side, dict[str, JsonValue]], uri: str) -> None:
    destination = monitors.get("destination")
    if destination is not None and not before["destination"].get("status"):  # it was started with -incoming defer
        await destination.execute("migrate-incoming", {"uri": uri})
    await monitors["source"].execute("migrate", {"uri": uri})


async def _completed(
    monitor: Monitor, before: dict[str, JsonValue], told: Callable[[str], None], *, begun: bool, tells: bool
) -> None:
    """Wait until its migration has ended.

    Arguments:
        before: what it said of a migration before this one.
        begun: whether this one has begun, as the other side says.
        tells: whether it tells of each of its states by itself.

    Raises:
        MigpoolError: it did not complete.
    """
    while True:
        now = await _status(monitor)
        status = str(now.get("status", ""))
        # One that was soon over leaves nothing but its numbers, which may be those of the one before.
        begun = begun or now != before or any(event["event"] == "MIGRATION" for event in monitor.events)
        told(_line(monitor.side, status, now, begun=begun))
        if begun and status in ENDED:
            break
        await _until_next_look(monitor, tells=tells)
    if status != "completed":
        reason = " ".join(str(now.get("error-desc", "")).split())
        raise MigpoolError(f"the migration {status} at the {monitor.side}" + (f": {reason}" if reason else ""))


async def _until_next_look(monitor: Monitor, *, tells: bool) -> None:
    """Wait until it is time to ask again how the migration stands, or QEMU has told that it has ended."""
    clock = asyncio.get_running_loop().time
    begin = clock()
    while _state(monitor, "MIGRATION") not in ENDED:
        limit = QUIET if tells and _undisturbed(monitor) else EVERY
        if (left := begin + limit - clock()) <= 0:
            return
        await monitor.hears(left)
    await asyncio.sleep(0)


def _undisturbed(monitor: Monitor) -> bool:
    """Whether the machine must not be disturbed: it stands still at the source, or comes to the destination."""
    if monitor.side == "destination":
        return _state(monitor, "MIGRATION") == "active"
    return _state(monitor, "STOP", "RESUME") == "STOP"


def _state(monitor: Monitor, *names: str) -> str:
    """What QEMU has told of last: the migration's status, or the event's name; empty if of nothing."""
    for event in reversed(monitor.events):
        if event["event"] in names:
            data = event.get("data")
            return str(data.get("status", "")) if isinstance(data, dict) and data else str(event["event"])
    return ""


def _line(side: Side, status: str, now: Mapping[str, JsonValue], *, begun: bool) -> str:
    """How the migration stands."""
    if not begun or status in NOT_BEGUN:
        return f"{side}: waiting for the migration to begin"
    ram = now.get("ram")
    if not isinstance(ram, dict):
        return f"{side}: {status}"
    sent, left = (format_size(int(str(ram.get(name, 0)))) for name in ("transferred", "remaining"))
    rate = format_rate(float(str(ram.get("mbps", 0))) * 1e6 / 8)  # it says megabits a second
    return f"{side}: {status}, round {ram.get('dirty-sync-count', 0)}, {sent} sent, {left} left, {rate}"


async def _says(monitor: Monitor, ended: dict[str, JsonValue]) -> JsonValue:
    """What the monitor says of the migration, for the JSON."""
    capabilities = await monitor.rows("query-migrate-capabilities")
    return {
        "version": ".".join(map(str, monitor.version)),
        "query-migrate": ended,
        "capabilities": {str(row["capability"]): row["state"] for row in capabilities},
        "parameters": await monitor.table("query-migrate-parameters"),
        "events": _JSON.validate_python(monitor.events),
    }
