"""The scenario file (TOML) as a validated model.

::

    name = "two-functions"
    description = "what this scenario is for"
    seed = 1                          # made-up state depends on it; each repetition adds its number

    [machine]
    name = "pc-q35-10.0"

    [[devices]]                       # in the order in which they are stopped, saved and loaded
    plugin = "vfio"                   # a name that `migpool plugins` shows
    count = 2
    options = {size = "64MiB"}        # the plug-in's own
    vmsd = "multifd"                  # as [migration] vmsd, for these devices
    in_flight = 2                     # as [migration] in_flight, for these devices

    [channels]
    count = 4
    transport = "tcp"                 # or "unix"; for `run` and `compare`
    congestion = ""                   # TCP congestion control; empty: cubic on loopback, else the system's
    tls = ""                          # a directory with certificates or a key: every connection is encrypted
    tls_hostname = ""                 # what the destination's certificate is for, if not for the host in the address

    [memory]
    budget = "32MiB"                  # what the destination may hold
    chunk = "1MiB"
    device_budget = "8MiB"            # how much of it one device may hold; without it there is no limit of its own

    [limits]                          # seconds
    peer = 30
    connect = 10
    accept = 300

    [link]
    rate = "1.25GiB/s"                # declared, for the lower bound; without it the link is taken as it is

    [migration]
    downtime_limit = 0.3
    rounds = 30
    max_bandwidth = "1GiB/s"          # for memory, while the machine runs; without it there is no limit
    auto_converge = true              # slow the vCPUs down when they write faster than can be sent
    together = true                   # memory, iterable devices and the rest at once, or one after the other
    splice = false                    # move state past the buffers, where a device has a descriptor for that
    credits = true
    vmsd = "main-channel"             # or "multifd": devices that are not iterable as jobs, over the multifd channels
    live = "main-channel"             # or "multifd": what iterable devices give while the machine runs
    in_flight = 1                     # jobs that save an iterable device at once: one reads while another sends
    config_load = "as-loaded"         # or "after-iterables": once every iterable device has all its state

    [compare]
    models = ["pool", "per-device"]   # empty: all that are installed
    repeats = 3

Every key but ``name`` and one device has a default. Sizes are whole numbers of bytes or text such as "64MiB".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, field_validator

from migpool.device import ConfigChannel
from migpool.errors import ScenarioError
from migpool.migration.settings import ConfigLoad, Settings
from migpool.scenario import shipped
from migpool.scenario.messages import explain, file_text, toml_table
from migpool.units import MIB, parse_rate, parse_size

Size = Annotated[int, BeforeValidator(parse_size), Field(ge=1)]
Rate = Annotated[int, BeforeValidator(parse_rate), Field(ge=1)]
InFlight = Annotated[int, Field(ge=1, le=64)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


class Table(BaseModel):
    """A table of such a file, read without a guess: what is not known in it is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class MachineTable(Table):
    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] = "pc-q35-10.0"


class DeviceEntry(Table):
    """One of ``[[devices]]``: what a plug-in is asked for."""

    plugin: Annotated[str, Field(min_length=1)]
    count: Annotated[int, Field(ge=1, le=4096)] = 1
    options: dict[str, JsonValue] = {}
    vmsd: ConfigChannel | None = None
    in_flight: InFlight | None = None


class ChannelsTable(Table):
    count: Annotated[int, Field(ge=1, le=255)] = 2
    transport: Literal["tcp", "unix"] = "tcp"
    congestion: str = ""
    tls: str = ""
    tls_hostname: str = ""


class MemoryTable(Table):
    """``[memory]``, in bytes."""

    budget: Size = 64 * MIB
    device_budget: Size | None = None
    chunk: Annotated[Size, Field(ge=4096, le=64 * MIB, multiple_of=4096)] = MIB


class LimitsTable(Table):
    """``[limits]``, in seconds."""

    peer: Seconds = 30.0
    connect: Seconds = 10.0
    accept: Seconds = 300.0


class LinkTable(Table):
    """``[link]``: bytes per second, ``None`` if it was not declared."""

    rate: Rate | None = None


class MigrationTable(Table):
    downtime_limit: Seconds = 0.3
    rounds: Annotated[int, Field(ge=1, le=1000)] = 30
    max_bandwidth: Rate | None = None
    auto_converge: bool = True
    together: bool = True
    splice: bool = False
    credits: bool = True
    vmsd: ConfigChannel = "main-channel"
    live: ConfigChannel = "main-channel"
    in_flight: InFlight = 1
    config_load: ConfigLoad = "as-loaded"


class CompareTable(Table):
    models: list[Annotated[str, Field(min_length=1)]] = []
    repeats: Annotated[int, Field(ge=1, le=10000)] = 3

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: list[str]) -> list[str]:
        twice = sorted({name for name in models if models.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is named twice: name each model once")
        return models


class Scenario(Table):
    """A scenario, every value of it; the top of this file shows how it is written."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] = 1
    machine: MachineTable = MachineTable()
    devices: Annotated[list[DeviceEntry], Field(min_length=1)]
    channels: ChannelsTable = ChannelsTable()
    memory: MemoryTable = MemoryTable()
    limits: LimitsTable = LimitsTable()
    link: LinkTable = LinkTable()
    migration: MigrationTable = MigrationTable()
    compare: CompareTable = CompareTable()

    def settings(self) -> Settings:
        """What the scenario says of how a migration is carried out."""
        return Settings(
            channels=self.channels.count,
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
