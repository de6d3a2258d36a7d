"""The names of threading models on the command line.

::

    pool                    the model "pool" at both ends
    pool:4                  the same, with 4 workers
    pool+receiver           "pool" at the source, "receiver" at the destination
    pool:2+elastic:8        2 workers at the source, at most 8 at the destination
    pool:4:queue            4 workers, and a word that the model knows (``Scheduler.choices``)
"""

from __future__ import annotations

from dataclasses import dataclass

from migpool.device import Side
from migpool.errors import PluginError, ScenarioError, UsageError
from migpool.scenario.plugins import load_scheduler, names
from migpool.scenario.schema import Scenario
from migpool.schedulers.base import Scheduler

_SIDES: tuple[Side, Side] = ("source", "destination")


@dataclass(frozen=True, slots=True)
class SideModel:
    """What one side runs its jobs with.

    Attributes:
        name: what the command line calls it, without what follows.
        scheduler: the threading model's class.
        workers: how many threads were asked for; ``None`` leaves it to the model.
        chosen: the words that were added to the name.
    """

    name: str
    scheduler: type[Scheduler]
    workers: int | None
    chosen: frozenset[str] = frozenset()

    def make(self) -> Scheduler:
        """A scheduler for one migration."""
        scheduler = self.scheduler()
        scheduler.name = self.name
        scheduler.chosen = self.chosen
        return scheduler


@dataclass(frozen=True, slots=True)
class Model:
    """A name from the command line, understood."""

    name: str
    source: SideModel
    destination: SideModel

    def part(self, side: Side) -> SideModel:
        """One side's part."""
        return self.source if side == "source" else self.destination


def parse_model(text: str) -> Model:
    """Understand a model's name; see the top of this file.

    Raises:
        UsageError: it is no such name, names an unknown model, or one that cannot be used there.
    """
    pieces = text.split("+")
    if len(pieces) > 2 or not all(pieces):
        raise UsageError(f"model {text!r}: write NAME, NAME:WORKERS or SOURCE+DESTINATION, such as pool:4+receiver")
    parts = [parse_part(piece, text) for piece in pieces]
    for side, part, piece in zip(_SIDES, parts * 2, pieces * 2, strict=False):
        if side not in part.scheduler.sides:
            raise UsageError(f"model {text!r}: {_remedy(side, piece)}")
    return Model(text, parts[0], parts[-1])


def parse_models(text: str) -> list[Model]:
    """Understand names separated by commas, each once.

    Raises:
        UsageError: as :func:`parse_model`; or there is none, or one stands there twice.
    """
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    if not pieces:
        raise UsageError("no model is named: write for example --models pool,per-device")
    twice = sorted({piece for piece in pieces if pieces.count(piece) > 1})
    if twice:
        raise UsageError(f"model {twice[0]!r} is named twice: name each once, and use --repeats for more runs")
    return [parse_model(piece) for piece in pieces]


def all_models() -> list[str]:
    """A name for each threading model that is installed and works; one for loading only is combined with a thread a
    device at the source, one for saving only likewise at the destination."""
    found = []
    for name in names("scheduler"):
        try:
            sides = load_scheduler(name).sides
        except PluginError:
            continue
        if sides.issuperset(_SIDES):
            found.append(name)
        elif "destination" in sides:
            found.append(f"per-device+{name}")
        else:
            found.append(f"{name}+per-device")
    return found


def scenario_models(scenario: Scenario, where: str) -> list[str]:
    """The names that a scenario compares, perhaps none.

    Arguments:
        where: the scenario's file, for errors.

    Raises:
        ScenarioError: one of them is wrong.
    """
    for number, name in enumerate(scenario.compare.models):
        try:
            parse_model(name)
        except UsageError as error:
            raise ScenarioError(f"{where}: compare.models[{number}]: {error}") from error
    return list(scenario.compare.models)


def parse_part(piece: str, text: str = "") -> SideModel:
    """Understand the name of a model for one end.

    Arguments:
        text: what it stands in, for errors; empty for nothing else.

    Raises:
        UsageError: as :func:`parse_model`.
    """
    text = text or piece
    name, *words = piece.split(":")
    try:
        scheduler = load_scheduler(name)
    except PluginError as error:
        raise UsageError(f"model {text!r}: {error}") from error
    counts = [word for word in words if _is_count(word)]
    if counts and not scheduler.takes_workers:
        raise UsageError(f"model {text!r}: {name} has no number of workers: write {name} alone")
    chosen = [word for word in words if word not in counts]
    for word in chosen:
        if not any(word in group for group in scheduler.choices):
            raise UsageError(f"model {text!r}: after {name}: stands {_after(scheduler)}, not {word!r}")
    for group in (counts, *scheduler.choices):
        excluding = [word for word in words if word in group]
        if len(excluding) > 1:
            raise UsageError(f"model {text!r}: {' and '.join(excluding)} exclude each other: write one of them")
    return SideModel(name, scheduler, int(counts[0]) if counts else None, frozenset(chosen))


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 10 and int(word) > 0


def _after(scheduler: type[Scheduler]) -> str:
    """What may follow a model's name, in words."""
    words = [word for group in scheduler.choices for word in group]
    if scheduler.takes_workers:
        words.insert(0, "the number of workers, 1 or more")
    return ", or ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "nothing"


def _remedy(side: Side, piece: str) -> str:
    if side == "source":
        return f"{piece} can only load: name a model to save with before it, such as per-device+{piece}"
    return f"{piece} can only save: name a model to load with after it, such as {piece}+per-device"
