"""Finds experiments: those that come with migpool by their names, any other by the path of its file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from migpool.errors import ScenarioError, UsageError
from migpool.experiments.form import Experiment, parse_experiment


def names() -> list[str]:
    """The names of the experiments that come with migpool, in order: C2 before C10."""
    found = (entry.name for entry in files("migpool").joinpath("experiments", "claims").iterdir())
    return sorted((name.removesuffix(".toml") for name in found if name.endswith(".toml")), key=in_order)


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
    """The text of an experiment, as it is written.

    Raises:
        UsageError: there is none of that name, and no such file.
        ScenarioError: the file cannot be read.
    """
    name = next((name for name in names() if name.lower() == name_or_path.lower()), "")
    if name:
        return files("migpool").joinpath("experiments", "claims", f"{name}.toml").read_text("utf-8")
    try:
        return Path(name_or_path).read_text("utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"there is no experiment {name_or_path!r}, and no such file; there are {', '.join(names())}, and all"
        ) from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{name_or_path}: byte {error.start} is not UTF-8: save the file as UTF-8") from None
    except OSError as error:
        raise ScenarioError(f"{name_or_path}: cannot be read: {error.strerror or error}") from None


def in_order(name: str) -> tuple[str, int]:
    """What to sort names by, so that C2 comes before C10."""
    match = re.fullmatch(r"(\D*)(\d*).*", name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)
