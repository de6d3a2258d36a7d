"""Save a running machine into a file, and load it from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from migpool.cli.interrupt import Interrupt
from migpool.cli.lazy import group
from migpool.cli.options import Debug, SeedOption, complete_scenario
from migpool.cli.output import complain, say
from migpool.core.machine import Machine
from migpool.device import Side
from migpool.errors import Cancelled
from migpool.migration.settings import Settings

TICK = 0.25
"""How often a snapshot that is under way is looked at, in seconds."""

app = group(__doc__ or "")

File = Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="The file.")]
ScenarioOption = Annotated[
    str,
    typer.Option(
        "--scenario",
        metavar="SCENARIO",
        help="Whose machine: a built-in scenario, or the path of a file.",
        autocompletion=complete_scenario,
    ),
]


@app.command("save")
def save(
    file: File,
    scenario: ScenarioOption = "guest",
    seed: SeedOption = None,
    _: Debug = False,
) -> None:
    """Start the scenario's machine, and save it while it runs; it ends then, to go on from the file.

    The memory is written in rounds, as in a migration. The file is a stream
    that [cyan]migpool inspect[/] reads.

      [cyan]migpool snapshot save guest.mig[/]
    """
    from migpool.lab.run.result import RoundResult, round_line
    from migpool.precopy.rounds import Round
    from migpool.schedulers.inline import InlineScheduler
    from migpool.streams.file.file import StreamFile
    from migpool.streams.snapshot import SnapshotSource

    def show(done: Round) -> None:
        say(round_line(RoundResult.of(done)))

    with _machine(scenario, "source", seed) as (machine, settings, interrupt), StreamFile(file) as stream:
        source = SnapshotSource(machine, settings, InlineScheduler(), stream, progress=show)
        _carry_out(source.save, source.cancel, interrupt)
        say(f"{file}: {stream.size} bytes, the machine stands still in it")


@app.command("load")
def load(
    file: File,
    scenario: ScenarioOption = "guest",
    seed: SeedOption = None,
    _: Debug = False,
) -> None:
    """Load the machine that the file holds, let it go on, and have every device prove that it does.

    Scenario and seed are those with which it was saved.

      [cyan]migpool snapshot load guest.mig[/]
    """
    from migpool.schedulers.inline import InlineScheduler
    from migpool.streams.snapshot import SnapshotDestination

    with _machine(scenario, "destination", seed) as (machine, settings, interrupt):
        destination = SnapshotDestination(machine, settings, InlineScheduler())
        _carry_out(partial(destination.load, file), destination.cancel, interrupt)
        for slot in machine:
            if slot.device.remark:
                say(f"{slot.name} {slot.device.remark}")
        say(f"{file}: loaded, the machine runs and every device that checks itself finds nothing wrong")


@contextmanager
def _machine(scenario: str, side: Side, seed: int | None) -> Iterator[tuple[Machine, Settings, Interrupt]]:
    """The scenario's machine and settings, and what says whether Ctrl-C or SIGTERM has come."""
    from migpool.scenario.build import build_machine
    from migpool.scenario.schema import load_scenario

    found = load_scenario(scenario)
    with Interrupt(complain) as interrupt:
        machine = build_machine(found, side, found.seed if seed is None else seed, scenario)
        try:
            yield machine, found.settings(), interrupt
        except Cancelled:
            raise typer.Exit(interrupt.exit_code) from None
        finally:
            machine.close()


def _carry_out(run: Callable[[], object], cancel: Callable[[], None], interrupt: Interrupt) -> None:
    """Do it on a thread of its own; the first signal cancels it."""
    from concurrent.futures import ThreadPoolExecutor, wait

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(run)
        while not wait((result,), TICK).done:
            if interrupt():
                cancel()
        result.result()
