"""The file of a sweep (TOML) as a validated model.

::

    name = "channels-and-memory"
    scenario = "many"                 # a built-in scenario, or a file, as seen from this one
    mode = "simulated"                # or "real"
    models = ["pool", "per-device"]   # without them those of the scenario, or all that are installed
    repeats = 1                       # of each real point
    seed = 1                          # of a sample, and of made-up state; without it the scenario's
    sample = 500                      # so many places of the space; without it the whole grid
    set = {"devices.0.count" = 8}     # keys of the scenario that are different everywhere, with dots; lists by number

    [[axes]]
    key = "channels.count"
    values = [1, 2, 4, 8]

    [[axes]]
    key = "devices.0.options.size"
    least = "1MiB"                    # a range, for a sample, or in so many steps
    most = "64MiB"
    steps = 4
    scale = "log"                     # or "linear"
    multiple = "4KiB"                 # every value is a multiple of this

    [host]                            # how fast a simulated host is: the arguments of Host in migpool/sim/scenarios.py
    channel_rate = "1.5GiB/s"
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from migpool.errors import ScenarioError, UsageError
from migpool.scenario.changes import change
from migpool.scenario.messages import explain, file_text, toml_table
from migpool.scenario.model_syntax import all_models, parse_model, scenario_models
from migpool.scenario.schema import Rate, Scenario, Table, builtin_names, load_scenario, parse_scenario, scenario_text
from migpool.sim.scenarios import Host
from migpool.units import parse_duration, parse_rate

Value = bool | int | float | str
"""Of an axis: what a scenario's key can be, but for lists and tables."""
Unit = Literal["", "bytes", "seconds"]

_Key = Annotated[str, Field(min_length=1, max_length=200)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
OWN: Final = {
    "model": "string",
    "repeat": "int64",
    "seed": "int64",
    "outcome": "string",
    "error": "string",
    "downtime_ms": "float64",
    "total_ms": "float64",
    "memory_bytes": "int64",
    "threads": "int64",
    "host": "string",
}
"""Every row's columns and their types besides ``point`` and the axes. ``outcome`` is "simulated", "refused" where there
can be no such scenario, or that of a run; ``memory_bytes`` is the most that the destination held of its budget."""


class Axis(Table):
    """One of ``[[axes]]``: a key of the scenario, and the values that it takes."""

    key: _Key
    values: Annotated[list[Value], Field(min_length=1, max_length=10_000)] | None = None
    least: Value | None = None
    most: Value | None = None
    steps: Annotated[int, Field(ge=2, le=10_000)] | None = None
    scale: Literal["linear", "log"] = "linear"
    multiple: Value | None = None

    @field_validator("key")
    @classmethod
    def _no_column(cls, key: str) -> str:
        if key in OWN or key == "point":
            raise ValueError(f"{key} is no axis: write models, repeats or seed at the top of the file")
        return key

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.values is None) == (self.least is None or self.most is None):
            raise ValueError("an axis has values, or least and most: write one of the two")
        if self.values is not None:
            if self.steps is not None or self.multiple is not None:
                raise ValueError("an axis with values has no steps and no multiple: remove them")
            plain = [number for number, _ in map(_number, self.values)]
            if len({"text" if isinstance(one, str) else isinstance(one, bool) for one in plain}) > 1:
                raise ValueError(
                    "the values of an axis must be of one kind: all numbers, all text, or all true or false"
                )
            if len(set(plain)) < len(plain):
                raise ValueError("an axis has one of its values twice: write each once")
            return self
        if not all(isinstance(one, int | float) for one in self.range):
            raise ValueError("least and most must be numbers, sizes, rates or durations")
        least, most = self.range
        if not least < most or (self.scale == "log" and least <= 0):
            raise ValueError("least must be less than most, and over 0 where the scale is log")
        return self

    @property
    def range(self) -> tuple[Any, Any]:
        """Least and most as numbers: bytes, seconds, or what they are."""
        assert self.least is not None
        assert self.most is not None
        return _number(self.least)[0], _number(self.most)[0]

    @property
    def unit(self) -> Unit:
        """What its numbers are, if they were written with a unit."""
        written = (
            self.values if self.values is not None else [one for one in (self.least, self.most) if one is not None]
        )
        units = {unit for _, unit in map(_number, written) if unit}
        return units.pop() if len(units) == 1 and self.numeric else ""

    @property
    def numeric(self) -> bool:
        """Whether every value of it is a number, a size, a rate or a duration."""
        written = self.values if self.values is not None else [0]
        return not any(isinstance(_number(one)[0], str | bool) for one in written)

    def at(self, share: float) -> Value:
        """The value at a place from 0 (included) to 1 (excluded)."""
        if self.values is not None:
            written = self.values[int(share * len(self.values))]
            return _number(written)[0] if self.numeric else written
        return self._between(share)

    def grid(self) -> list[Value]:
        """All values of a grid."""
        if self.values is not None:
            return [self.at((number + 0.5) / len(self.values)) for number in range(len(self.values))]
        assert self.steps is not None
        return list(dict.fromkeys(self._between(step / (self.steps - 1)) for step in range(self.steps)))

    def _between(self, share: float) -> Value:
        least, most = self.range
        value = least * (most / least) ** share if self.scale == "log" else least + (most - least) * share
        if self.multiple is not None:
            multiple = _number(self.multiple)[0]
            value = max(1, round(value / multiple)) * multiple
        whole = isinstance(least, int) and isinstance(most, int)
        return round(value) if whole else float(f"{value:.6g}")


def _number(written: Value) -> tuple[Value, Unit]:
    """A value as a number and its unit, or as the text that it is."""
    if isinstance(written, str):
        try:
            return parse_rate(written), "bytes"
        except ValueError:
            pass
        try:
            return parse_duration(written), "seconds"
        except ValueError:
            pass
    return written, ""


USUAL: Final = Host()


class HostTable(Table):
    """``[host]``: how fast a simulated host is."""

    channel_rate: Rate = int(USUAL.channel_rate)
    link_rate: Rate = int(USUAL.link_rate)
    step: _Time = USUAL.step
    base: _Time = USUAL.base
    call: _Time = USUAL.call
    config: _Time = USUAL.config
    copy_rate: Rate | None = None
    copying: Annotated[int, Field(ge=0, le=4096)] = USUAL.copying
    wake: _Time = USUAL.wake


class SweepFile(Table):
    """The whole file; the top of this one shows how it is written."""

    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    scenario: Annotated[str, Field(min_length=1)]
    mode: Literal["simulated", "real"] = "simulated"
    models: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    repeats: Annotated[int, Field(ge=1, le=10_000)] = 1
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None
    sample: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    set: dict[str, JsonValue] = Field(default={})
    axes: Annotated[list[Axis], Field(min_length=1, max_length=12)]
    host: HostTable = HostTable()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        keys = [axis.key for axis in self.axes]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"two axes go along {twice[0]}: write one")
        if twice := sorted({name for name in self.models if self.models.count(name) > 1}):
            raise ValueError(f"model {twice[0]!r} is named twice: name each once")
        if self.sample is None:
            for axis in self.axes:
                if axis.values is None and axis.steps is None:
                    raise ValueError(f"the axis {axis.key} has a range: give it steps, or the sweep a sample")
        return self


class Sweep:
    """A sweep's file with its scenario.

    Arguments:
        file: as it was read.
        where: its name, for errors.
        table: the scenario's keys, with what the sweep sets everywhere.

    Attributes:
        models: the threading models' names.
        seed: of a sample, and of made-up state.
    """

    def __init__(self, file: SweepFile, where: str, table: dict[str, Any]) -> None:
        self.file = file
        self.where = where
        self.table = table
        base = self.scenario({})
        self.models = file.models or scenario_models(base, where) or all_models()
        self.seed = base.seed if file.seed is None else file.seed
        self.host = Host(**file.host.model_dump(exclude_none=True))
        for name in self.models:
            try:
                parse_model(name)
            except UsageError as error:
                raise ScenarioError(f"{where}: models: {error}") from error

    def scenario(self, changes: dict[str, Value]) -> Scenario:
        """The scenario at one place.

        Raises:
            ScenarioError: it cannot be.
        """
        return scenario_at(self.table, changes, self.where)


def scenario_at(table: dict[str, Any], changes: dict[str, Value], where: str) -> Scenario:
    """A scenario with some keys changed.

    Raises:
        ScenarioError: it cannot be.
    """
    changed = copy.deepcopy(table)
    for path, value in changes.items():
        change(changed, path, value, where)
    return parse_scenario(changed, where)


def load_sweep(path: Path) -> Sweep:
    """Read a sweep and its scenario, and see that the ends of every axis make a scenario.

    Raises:
        UsageError: there is no such file.
        ScenarioError: something in it is wrong; a line each with the file, the key and the remedy.
    """
    where = str(path)
    try:
        table = toml_table(file_text(where), where)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    try:
        file = SweepFile.model_validate(table)
    except ValidationError as error:
        raise ScenarioError("\n".join(explain(error.errors(), where, SweepFile))) from None
    named = file.scenario
    if named not in builtin_names() and not Path(named).is_absolute():
        named = str(path.parent / named)
    load_scenario(named)
    base: dict[str, Any] = toml_table(scenario_text(named), named)
    for key, value in file.set.items():
        change(base, key, value, f"{where}: set")
    sweep = Sweep(file, where, base)
    first = {axis.key: axis.at(0.0) for axis in file.axes}
    for axis in file.axes:
        for share in (0.0, 0.999999):
            try:
                sweep.scenario({**first, axis.key: axis.at(share)})
            except ScenarioError as error:
                raise ScenarioError(f"{error} (axis {axis.key})") from error
    return sweep
