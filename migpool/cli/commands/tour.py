"""``migpool tour``: what there is to see, in three minutes, by real runs."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from migpool.cli.options import Debug

PLACES: Final = {
    "q35": ("migpool_plugins.vmsd", "machines/q35-rich.mig.gz"),
    "source": ("migpool.lab.qemu", "sample/source.log.xz"),
    "destination": ("migpool.lab.qemu", "sample/destination.log.xz"),
}
"""Files that come with migpool, by the names that stand for them in a step's command: package and path in it."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of the tour.

    Attributes:
        title: what it is about.
        about: what happens.
        words: the command's, a word each; ``{out}`` is a directory that goes when the tour ends.
        look: what to look at in what it prints.
    """

    title: str
    about: str
    words: Sequence[str]
    look: str


STEPS: Final = (
    Step(
        "A migration",
        "A small machine moves from one process to another. The migration's own thread does all the devices' work.",
        ("run", "small", "--model", "inline"),
        "the time line: one device waits while the other is read. That is what a second thread would change.",
    ),
    Step(
        "Which thread should do which part?",
        "The same devices, jobs and wire, under a pool that the migration owns, a thread for each device, and inline.",
        ("compare", "default", "--models", "pool,per-device,inline", "--repeats", "1", "--no-report"),
        "Downtime beside Threads, and under the table what limits the fastest and what it would be without that.",
    ),
    Step(
        "A machine that runs while it moves",
        "A guest writes its memory all the time; it is sent in rounds until little is left.",
        ("run", "guest", "--model", "pool"),
        "the rounds: how much was written while one was sent, and what downtime that let expect.",
    ),
    Step(
        "What a real QEMU sends",
        "A q35 machine as QEMU 10.0 wrote it. Its stream describes itself, so every field has a name.",
        ("inspect", "{q35}", "--device", "*serial*", "--device", "cpu_common"),
        "the registers of the serial port by name; without --device, all sections in their order.",
    ),
    Step(
        "Where a real QEMU's downtime went",
        "The trace logs of two QEMUs that migrated a machine with 16 network cards.",
        ("explain", "{source}", "{destination}"),
        "the first sentence: what limits it, and what the downtime would be without that.",
    ),
    Step(
        "A device of your own",
        "A package that works, to change into yours. Installed, migpool conformance tour-device checks it.",
        ("new-device", "tour-device", "--into", "{out}"),
        "what to type next. The class is in src/tour_device/__init__.py; all of it goes when the tour ends.",
    ),
)


def tour(
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for Enter after each step, on a terminal.")
    ] = True,
    _: Debug = False,
) -> None:
    """Show in three minutes what migpool does: real runs, and what to look at in each.

    A step that this machine cannot make is left out, and says why.

      [cyan]migpool tour --no-wait[/]      all of it at once
    """
    from contextlib import ExitStack
    from importlib.resources import as_file, files

    from migpool.cli.output import say

    left_out = 0
    with ExitStack() as stack:
        places = {
            name: str(stack.enter_context(as_file(files(package).joinpath(path))))
            for name, (package, path) in PLACES.items()
        }
        places["out"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="migpool-tour-"))
        waits = wait and sys.stdin.isatty() and sys.stdout.isatty()
        for number, step in enumerate(STEPS, 1):
            words = [word.format(**places) for word in step.words]
            for line in ("", f"== {number} of {len(STEPS)}: {step.title}", "", step.about, f"Look at {step.look}"):
                say(line)
            for line in ("", f"$ migpool {shlex.join(words)}", ""):
                say(line)
            left_out += not _done(words)
            if waits and number < len(STEPS):
                say("")
                say("Enter goes on, Ctrl-C ends the tour")
                sys.stdin.readline()
    say("")
    say("Where next: migpool compare, migpool lab list, migpool COMMAND --help; the tutorials in docs/ or the site.")
    if left_out:
        say(f"{left_out} of {len(STEPS)} steps could not be made; each says why.")


def _done(words: list[str]) -> bool:
    """Run a command of the tour in this process; whether it could be done here.

    Raises:
        typer.Exit: it was cancelled, and so is the tour.
    """
    from migpool.cli.app import app
    from migpool.cli.exit_code import ExitCode
    from migpool.cli.invocation import Invocation
    from migpool.cli.output import complain
    from migpool.errors import MigpoolError

    try:
        code = app(words, standalone_mode=False, prog_name="migpool", obj=Invocation())
    except MigpoolError as error:
        complain(f"this step is left out: {error}")
        return False
    if code in (ExitCode.CANCELLED, ExitCode.TERMINATED):
        raise typer.Exit(int(code))
    return not code
