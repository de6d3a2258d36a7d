"""The file of an experiment (TOML) as a validated model, and where there are such files.

::

    id = "C1"
    title = "Fewer workers than blocking devices"
    claim = "what was said"
    by = "who said it"
    method = '''A few sentences: what is run, what is compared, why that decides it.'''
    depends = "what it depends on, if the comparisons disagree"

    [scenario]                        # a scenario, as in a file of its own
    ...

    [[variants]]                      # what is run, in this order and backwards in turn
    name = "one worker"
    model = "pool:1"
    set = {"devices.0.count" = 2}     # keys of the scenario that are different here, with dots; lists by number
    run = true                        # false: it is only simulated, since this host cannot show it
    simulated = {savers = 1}          # the same in virtual time; with [simulation], see simulated.py

    [[comparisons]]
    name = "one worker against four"
    of = "one worker"                 # the ratio is of this variant's measure ...
    to = "four workers"               # ... to this one's, in the same round
    measure = "downtime"              # or "total", from the begin at the source to the end; "load": see qemu_pair.py
    least = 1.1                       # the claim holds here if the ratio is at least this, at most that, or between
    most = 2.0
    decides = true                    # false: it is told, and decides nothing

    [[limits]]                        # what no run may exceed
    name = "memory in use, as a share of the budget"
    measure = "memory share"
    most = 1.0

    [cancels]                         # instead of variants: migrations that are cancelled at many waits
    models = ["pool", "per-device"]
    waits = 40                        # of each side and model
    quick = 6                         # the same for a quick look

    [qemu]                            # instead of the scenario: machines of a real QEMU; see qemu_pair.py
    ...

    [effort]
    precision = 0.02                  # half of the interval's width, as a share of the ratio, that is narrow enough
    seconds = 120                     # for all rounds; after two, none begins that would probably end later
    quick = 12                        # the same for a quick look
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, ValidationError, model_validator

from migpool.errors import ScenarioError, UsageError
from migpool.experiments.qemu_pair import DevicesTable, MachineTable
from migpool.experiments.rack import RackTable
from migpool.experiments.simulated import world_of
from migpool.scenario import shipped
from migpool.scenario.changes import change
from migpool.scenario.messages import explain, file_text, toml_table
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import Scenario, Table, parse_scenario
from migpool.sim.world import World

Measure: TypeAlias = Literal["downtime", "total", "load"]
QEMU: Final = "QEMU"
"""What stands for the model of a variant that real QEMUs migrate."""

_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


class Variant(Table):
    """One of ``[[variants]]``: a model, and what differs from the scenario; or devices of a real QEMU."""

    name: _Name
    model: _Name = QEMU
    set: dict[str, JsonValue] = Field(default={})
    run: bool = True
    simulated: dict[str, JsonValue] | None = None
    rack: RackTable | None = None
    qemu: DevicesTable | None = None


class Comparison(Table):
    """One of ``[[comparisons]]``: a ratio, and where it must lie for the claim to hold."""

    name: _Name
    of: _Name
    to: _Name
    measure: Measure = "downtime"
    least: _Ratio | None = None
    most: _Ratio | None = None
    decides: bool = True

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("neither least nor most is there: say which ratios the claim expects")
        if self.least is not None and self.most is not None and self.least >= self.most:
            raise ValueError(f"least is {self.least:g} and most {self.most:g}: least must be less")
        return self


class Limit(Table):
    """One of ``[[limits]]``: what no run may exceed."""

    name: _Name
    measure: Literal["memory share"] = "memory share"
    most: _Ratio = 1.0


class Cancels(Table):
    models: Annotated[list[_Name], Field(min_length=1)]
    waits: Annotated[int, Field(ge=1, le=10000)] = 40
    quick: Annotated[int, Field(ge=1, le=10000)] = 6


class Effort(Table):
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.02
    seconds: _Seconds = 120.0
    quick: _Seconds = 12.0


class Experiment(Table):
    """A whole file; the top of this one shows how it is written."""

    id: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: _Name
    claim: Annotated[str, Field(min_length=1)]
    by: Annotated[str, Field(min_length=1)]
    method: Annotated[str, Field(min_length=1)]
    depends: str = ""
    scenario: dict[str, JsonValue] = Field(default={})
    qemu: MachineTable | None = None
    simulation: dict[str, JsonValue] = Field(default={})
    variants: list[Variant] = Field(default=[])
    comparisons: list[Comparison] = Field(default=[])
    limits: list[Limit] = Field(default=[])
    cancels: Cancels | None = None
    effort: Effort = Effort()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if bool(self.scenario) == (self.qemu is not None):
            raise ValueError("there must be a scenario or qemu: write one of the two")
        if self.cancels is not None:
            if self.variants or self.comparisons or self.limits:
                raise ValueError("cancels excludes variants, comparisons and limits: write one or the other")
            return self
        if not self.variants or not any(one.decides for one in self.comparisons):
            raise ValueError("there must be variants and a comparison that decides, or cancels")
        names = [variant.name for variant in self.variants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two variants are named {twice[0]!r}: give each a name of its own")
        for comparison in self.comparisons:
            for name in (comparison.of, comparison.to):
                if name not in names:
                    raise ValueError(
                        f"comparison {comparison.name!r}: there is no variant {name!r}; there are {', '.join(names)}"
                    )
        for variant in self.variants:
            if not variant.run and variant.simulated is None:
                raise ValueError(f"variant {variant.name!r} is neither run nor simulated: give it one of the two")
            if (variant.qemu is None, variant.model != QEMU) != (self.qemu is None,) * 2:
                raise ValueError(
                    f"variant {variant.name!r}: give it a model and no qemu with a scenario, else the other way round"
                )
        loads = [one.name for one in self.comparisons if one.measure == "load" and self.qemu is None]
        if loads:
            raise ValueError(f"comparison {loads[0]!r}: only variants of qemu have the measure load")
        wrong = [one.name for one in self.comparisons if one.decides and one not in self.measured]
        if wrong and self.runs:
            raise ValueError(f"comparison {wrong[0]!r} decides, but has a variant that is only simulated")
        return self

    @property
    def runs(self) -> bool:
        """Whether anything is run; else all of it is simulated, which decides nothing."""
        return self.cancels is not None or any(variant.run for variant in self.variants)

    @property
    def measured(self) -> list[Comparison]:
        """The comparisons of which both variants are run."""
        run = {variant.name for variant in self.variants if variant.run}
        return [one for one in self.comparisons if {one.of, one.to} <= run]

    @property
    def kinds(self) -> dict[str, str]:
        """Of which devices the loads are measured, by variant."""
        return {one.name: one.qemu.kind for one in self.variants if one.qemu is not None}

    def scenario_of(self, variant: Variant | None, where: str) -> Scenario:
        """The scenario as a variant has it; ``None`` for the scenario itself.

        Raises:
            ScenarioError: a key of it is wrong, or one that the variant sets.
        """
        table: dict[str, Any] = copy.deepcopy(self.scenario)
        for path, value in (variant.set if variant is not None else {}).items():
            change(table, path, value, where)
        return parse_scenario(table, f"{where}: scenario{f' of variant {variant.name!r}' if variant else ''}")

    def world_of(self, variant: Variant, where: str) -> World | None:
        """What is simulated of a variant, if anything is.

        Raises:
            ScenarioError: a key of it is wrong.
        """
        if variant.simulated is None:
            return None
        link = self.scenario_of(variant, where).link
        return world_of(self.simulation, variant.simulated, link, f"{where}: simulated of variant {variant.name!r}")


def parse_experiment(text: str, where: str) -> Experiment:
    """Read what such a file holds, and check all of it: every variant's scenario and model too.

    Arguments:
        where: its name, for errors.

    Raises:
        ScenarioError: something is wrong; a line each with the file, the key and the remedy.
    """
    try:
        experiment = Experiment.model_validate(toml_table(text, where))
    except ValidationError as error:
        raise ScenarioError("\n".join(explain(error.errors(), where, Experiment))) from None
    if experiment.qemu is not None:
        return experiment
    experiment.scenario_of(None, where)
    models = [(name, "cancels") for name in (experiment.cancels.models if experiment.cancels is not None else ())]
    for variant in experiment.variants:
        experiment.scenario_of(variant, where)
        experiment.world_of(variant, where)
        models.append((variant.model, f"variant {variant.name!r}"))
    for model, whose in models:
        try:
            parse_model(model)
        except UsageError as error:
            raise ScenarioError(f"{where}: {whose}: {error}") from error
    return experiment


def names() -> list[str]:
    """The names of the experiments that come with migpool, in order: C2 before C10."""
    return sorted(shipped("experiments", "claims"), key=in_order)


def chosen(wanted: Sequence[str]) -> list[Experiment]:
    """The experiments of some names; ``all`` stands for every one that comes with migpool.

    Raises:
        UsageError: there is none of that name, or it is named twice.
        ScenarioError: a file is wrong.
    """
    listed = [name for one in wanted for name in (names() if one.lower() == "all" else [one])]
    found = [load_experiment(name) for name in listed]
    ids = [one.id for one in found]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is named twice: name each experiment once")
    return found


def load_experiment(name_or_path: str) -> Experiment:
    """Read one experiment.

    Raises:
        UsageError: there is none of that name, and no such file.
        ScenarioError: it is wrong.
    """
    return parse_experiment(experiment_text(name_or_path), name_or_path)


def experiment_text(name_or_path: str) -> str:
    """The text of an experiment, as it is written: of one that comes with migpool by name, else of a file.

    Raises:
        UsageError: there is none of that name, and no such file.
        ScenarioError: the file cannot be read.
    """
    claims = {name.lower(): file for name, file in shipped("experiments", "claims").items()}
    if name_or_path.lower() in claims:
        return claims[name_or_path.lower()].read_text("utf-8")
    try:
        return file_text(name_or_path)
    except FileNotFoundError:
        raise UsageError(
            f"there is no experiment {name_or_path!r}, and no such file; there are {', '.join(names())}, and all"
        ) from None


def in_order(name: str) -> tuple[str, int, str]:
    """What to sort names by, so that C2 comes before C10, and C5 before C5-links."""
    match = re.fullmatch(r"(\D*)(\d*)(.*)", name)
    return (match[1], int(match[2] or 0), match[3]) if match else (name, 0, "")
