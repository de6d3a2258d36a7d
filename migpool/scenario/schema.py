"""The scenario file (TOML) as a validated model.

::

    name = "two-functions"

    [[devices]]                       # in the order in which they are stopped, saved and loaded
    plugin = "vfio"
    count = 2
    options = {size = "64MiB"}

    [channels]
    count = 4

What each key is stands below it here, and for readers in ``docs/reference/scenario.md``, which is made from this.
Every key but ``name`` and one device has a default. Sizes are whole numbers of bytes or text such as "64MiB".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from migpool.device import ConfigChannel
from migpool.errors import ScenarioError
from migpool.migration.settings import ConfigLoad, Settings
from migpool.scenario import shipped
from migpool.scenario.messages import explain, file_text, toml_table
from migpool.units import GIB, MIB, parse_duration, parse_rate, parse_size

# The unit is for who reads the schema.
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=1, json_schema_extra={"unit": "bytes"})]
Rate = Annotated[int, BeforeValidator(parse_rate), Field(ge=1, json_schema_extra={"unit": "bytes per second"})]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, le=86400, allow_inf_nan=False, json_schema_extra={"unit": "seconds"}),
]
InFlight = Annotated[int, Field(ge=1, le=64)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})]


_UUID = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?$"


class Table(BaseModel):
    """A table of such a file, read without a guess: what is not known in it is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class MachineTable(Table):
    """``[machine]``: what both ends must agree on."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] = "pc-q35-10.0"
    """The machine's type; a destination takes no other one."""
    uuid: Annotated[str, Field(pattern=_UUID)] = ""
    """What a source's multifd channels say of the machine: QEMU takes its own `-uuid` alone, and zeros
    (`00000000-0000-0000-0000-000000000000`) without one. Empty: another number each time, as migpool takes it."""


class DeviceEntry(Table):
    """``[[devices]]``, an entry each, in the order in which they are stopped, saved and loaded."""

    plugin: Annotated[str, Field(min_length=1)]
    """Which plug-in makes the devices: a name that `migpool plugins` shows."""
    count: Annotated[int, Field(ge=1, le=4096)] = 1
    """How many."""
    options: dict[str, JsonValue] = {}
    """The plug-in's own: `migpool plugins NAME` shows them."""
    vmsd: ConfigChannel | None = None
    """As `vmsd` of `[migration]`, for these devices; "main-channel": there the state of iterable ones crosses, too."""
    in_flight: InFlight | None = None
    """As `in_flight` of `[migration]`, for these devices."""


class ChannelsTable(Table):
    """``[channels]``: the multifd channels, which carry device state and pages."""

    count: Annotated[int, Field(ge=1, le=255)] = 2
    """How many channels."""
    transport: Literal["tcp", "unix"] = "tcp"
    """What joins the two processes of `run` and `compare`."""
    congestion: str = ""
    """TCP's congestion control; empty: cubic on loopback, else the system's."""
    tls: str = ""
    """A directory with certificates or a key, as for QEMU's ``tls-creds``: every connection is encrypted."""
    tls_hostname: str = ""
    """What the destination's certificate is for, if not for the host in the address."""


class MemoryTable(Table):
    """``[memory]``: what the destination may hold."""

    budget: Size = 64 * MIB
    """How much state the destination may hold that cannot be loaded yet."""
    device_budget: Size | None = None
    """How much of the budget one device may hold; without it there is no limit of its own."""
    chunk: Annotated[Size, Field(ge=4096, le=64 * MIB, multiple_of=4096)] = MIB
    """In pieces of what size the state of iterable devices is read and sent."""


class LimitsTable(Table):
    """``[limits]``: how long something may take that is waited for."""

    peer: Seconds = 30.0
    """For the other end to answer, or to show that it goes on."""
    connect: Seconds = 10.0
    """For the source to find the destination."""
    accept: Seconds = 300.0
    """For the destination to be found."""


class LinkTable(Table):
    """``[link]``: what joins the two hosts: `run`, `compare` and `lab run` make it, the simulator has it too."""

    rate: Rate | None = None
    """How fast it is, each way; without it the link is taken as it is. The lower bound takes it into account."""
    delay: Duration = 0.0
    """How long a packet is under way, one way."""
    jitter: Duration = 0.0
    """By how much more or less than `delay` a packet may take; packets may then pass each other."""
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The probability that a packet is lost, each way."""
    queue: Size | None = None
    """How much may wait for the link at either end; without it what is under way in a round trip, 512 KiB at least."""
    mtu: Annotated[int, Field(ge=576, le=65535)] = 1500
    """The largest packet, in bytes."""
    clock_offset: Duration = 0.0
    """By how much the destination's monotonic clock is ahead of the source's."""
    impose: bool = True
    """Make it: namespaces and veth of Linux, as root. Without it, the ends are joined as `channels.transport` says, and
    the other keys only say what the link is like, for the lower bound and the simulator."""

    @property
    def imposed(self) -> bool:
        """Whether it is to be made."""
        fields = {name: field for name, field in type(self).model_fields.items() if name != "impose"}
        return self.impose and any(getattr(self, name) != field.default for name, field in fields.items())

    @model_validator(mode="after")
    def _in_time(self) -> LinkTable:
        if self.jitter > self.delay:
            raise ValueError("jitter is longer than delay, so a packet would come before it was sent: set delay too")
        if self.imposed and self.rate is not None and self.rate >= 4 * GIB:
            raise ValueError("rate is over what the kernel limits a link to, 4 GiB/s: leave it out, or impose = false")
        return self


class MigrationTable(Table):
    """``[migration]``: how the machine is moved."""

    downtime_limit: Seconds = 0.3
    """The machine is stopped once what is left takes no longer than this."""
    rounds: Annotated[int, Field(ge=1, le=1000)] = 30
    """Rounds of pre-copy at most; a machine whose memory would then take longer than `downtime_limit` is not moved."""
    max_bandwidth: Rate | None = None
    """What the memory may send while the machine runs; without it there is no limit."""
    auto_converge: bool = True
    """Slow the vCPUs down when they write memory faster than it can be sent."""
    together: bool = True
    """After the stop: memory, iterable devices and the rest at once, or one after the other."""
    splice: bool = False
    """Move state past the buffers, where a device has a descriptor for that."""
    credits: bool = True
    """Send a chunk only when the destination has room for it."""
    vmsd: ConfigChannel = "main-channel"
    """Where the configs of devices that are not iterable cross: as sections, or as jobs over the multifd channels."""
    live: ConfigChannel = "main-channel"
    """Where what iterable devices give while the machine runs crosses."""
    in_flight: InFlight = 1
    """Jobs that save an iterable device at once: one reads while another sends."""
    config_load: ConfigLoad = "as-loaded"
    """When an iterable device's config is loaded: with its own state, or once all of them have theirs."""


class CompareTable(Table):
    """``[compare]``: what ``migpool compare`` does unless it is told otherwise."""

    models: list[Annotated[str, Field(min_length=1)]] = []
    """The threading models, each as for `run --model`; empty: all that are installed."""
    repeats: Annotated[int, Field(ge=1, le=10000)] = 3
    """Migrations under each model."""

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: list[str]) -> list[str]:
        twice = sorted({name for name in models if models.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is named twice: name each model once")
        return models


class Scenario(Table):
    """The keys at the top; the others stand in tables."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What results call it."""
    description: str = ""
    """What it is for, in a line."""
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] = 1
    """Made-up state depends on it; each repetition adds its number."""
    machine: MachineTable = MachineTable()
    devices: Annotated[list[DeviceEntry], Field(min_length=1)]
    """What is migrated: one entry at least."""
    channels: ChannelsTable = ChannelsTable()
    memory: MemoryTable = MemoryTable()
    limits: LimitsTable = LimitsTable()
    link: LinkTable = LinkTable()
    migration: MigrationTable = MigrationTable()
    compare: CompareTable = CompareTable()

    @model_validator(mode="after")
    def _carried(self) -> Scenario:
        if self.link.imposed and self.channels.transport == "unix":
            raise ValueError('a link carries TCP alone: set channels.transport = "tcp", or link.impose = false')
        return self

    def settings(self) -> Settings:
        """What the scenario says of how a migration is carried out."""
        return Settings(
            channels=self.channels.count,
            uuid=self.machine.uuid,
            chunk=self.memory.chunk,
            budget=self.memory.budget,
            device_budget=self.memory.device_budget or 0,
            peer_limit=self.limits.peer,
            connect_limit=self.limits.connect,
            accept_limit=self.limits.accept,
            congestion=self.channels.congestion,
            tls=self.channels.tls,
            tls_hostname=self.channels.tls_hostname,
            **{**self.migration.model_dump(), "max_bandwidth": self.migration.max_bandwidth or 0},
        )


def parse_scenario(table: Mapping[str, object], where: str) -> Scenario:
    """Validate what a scenario file holds.

    Arguments:
        where: the file's name, for errors.

    Raises:
        ScenarioError: a key is wrong; a line each with the file, the key and the remedy.
    """
    try:
        return Scenario.model_validate(table)
    except ValidationError as error:
        raise ScenarioError("\n".join(explain(error.errors(), where, Scenario))) from None


def load_scenario(name_or_path: str) -> Scenario:
    """Read a scenario: a built-in one by its name, any other by the path of its file.

    Raises:
        ScenarioError: there is none, or it is wrong.
    """
    where = f"{name_or_path} (built-in)" if _is_builtin(name_or_path) else name_or_path
    return parse_scenario(toml_table(scenario_text(name_or_path), where), where)


def builtin_names() -> list[str]:
    """The names of the scenarios that come with migpool, sorted."""
    return list(shipped("scenario", "shipped"))


def scenario_text(name_or_path: str) -> str:
    """The text of a scenario, as it is written.

    Raises:
        ScenarioError: there is none of that name, or it cannot be read.
    """
    if _is_builtin(name_or_path):
        return shipped("scenario", "shipped")[name_or_path].read_text("utf-8")
    try:
        return file_text(name_or_path)
    except FileNotFoundError:
        raise ScenarioError(
            f"{name_or_path}: there is no such file, and no built-in scenario of that name; "
            f"built in are {', '.join(builtin_names())}"
        ) from None


def _is_builtin(name: str) -> bool:
    return name in builtin_names() and not Path(name).is_file()
