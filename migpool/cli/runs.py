"""What ``run`` and ``compare`` do alike: make the runs, show them, write the files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.text import Text

from migpool.cli.interrupt import Interrupt
from migpool.cli.invocation import Invocation
from migpool.cli.logs import configure
from migpool.cli.options import Tuning, too_long
from migpool.cli.output import REPORT, STDOUT, check_writable, reported, write_all
from migpool.errors import UsageError
from migpool.lab.comparison import Lab, Planned, Run, Variant, Watcher, plan, watching
from migpool.lab.report.chrome_trace import chrome_trace
from migpool.lab.report.page.document import document
from migpool.lab.report.summary import limit_line
from migpool.lab.report.table import console_for, device_table, picture, render, run_line
from migpool.lab.report.time_line import switchover
from migpool.lab.run.process_pair import Observed
from migpool.lab.run.result import LabResult
from migpool.scenario.model_syntax import all_models, parse_model, scenario_models
from migpool.scenario.schema import load_scenario
from migpool.transport.credentials import ENDS, credentials
from migpool.units import count_of

if TYPE_CHECKING:
    from migpool.lab.run.cluster import TwoWorkers


@dataclass(frozen=True, slots=True)
class Apart:
    """Two workers of a cluster, for the two sides.

    Arguments:
        cluster: the scheduler's address.
        hosts: the source's worker and the destination's: names or addresses.
        insecure: whether the destination listens where strangers can connect.
    """

    cluster: str
    hosts: tuple[str, str]
    insecure: bool


@contextmanager
def _hosts(apart: Apart | None) -> Iterator[TwoWorkers | None]:
    if apart is None:
        yield None
        return
    from migpool.lab.run.cluster import TwoWorkers, connected

    client = connected(apart.cluster)
    try:
        yield TwoWorkers(client, apart.hosts, insecure=apart.insecure)
    finally:
        client.close(timeout=5)


def run_models(
    invocation: Invocation,
    scenario_name: str,
    models: Sequence[str],
    *,
    repeats: int | None,
    json_file: Path | None,
    trace_file: Path | None,
    picture_file: Path | None,
    seed: int | None,
    report_file: Path | None = None,
    default_report: bool = False,
    tuning: Tuning,
    variants: Sequence[Variant] = (Variant(),),
    allowed: float = inf,
    apart: Apart | None = None,
) -> int:
    """Make the runs and return the exit code.

    Arguments:
        models: their names; empty for those of the scenario.
        repeats: how often each; ``None`` for the scenario's number.
        tuning: what of the scenario is to be otherwise.
        variants: in what ways each model is to be run.
        allowed: how long a downtime may be, in seconds, for the exit code to be 0.
        apart: the two workers on which the sides are to be; ``None``: both here.
        default_report: whether to write a report to its usual place if ``report_file`` is not given.

    Raises:
        UsageError: the scenario, a model or a file cannot be used.
    """
    configure(invocation)
    scenario = tuning.applied(load_scenario(scenario_name))
    names = list(models) or scenario_models(scenario, scenario_name) or all_models()
    for name in names:
        parse_model(name)
    check_writable(json_file, trace_file, picture_file, report_file)
    planned = plan(
        names,
        repeats or scenario.compare.repeats,
        scenario.seed if seed is None else seed,
        variants,
    )
    if apart is None:
        for end in ENDS:
            credentials(scenario.channels.tls, end, scenario.channels.tls_hostname)
    elif scenario.channels.transport == "unix":
        raise UsageError('two hosts have no UNIX socket in common: write transport = "tcp" in [channels]')
    elif scenario.link.imposed:
        raise UsageError("two hosts have a link of their own: write impose = false in [link]")
    screen = console_for(sys.stderr)
    with (
        _hosts(apart) as hosts,
        Interrupt(lambda line: screen.print(f"migpool: {line}", markup=False, highlight=False)) as interrupt,
        watching(screen, len(planned)) as watcher,
    ):
        lab = Lab(scenario, scenario_name, hosts)
        lab.make(planned, _Logging(watcher), interrupt)
        came = interrupt()
    result = lab.result()
    console = screen if STDOUT in (json_file, trace_file, picture_file, report_file) else console_for(sys.stdout)
    try:
        # First of all: what was measured is seen also where a file cannot be written.
        if not came or any(run.outcome == "completed" for run in result.runs):
            _show(result, console, whole=not came, one=len(names) == 1)
    finally:
        report = _report_path(result, report_file, default_report and not came, screen)
        files: dict[Path, str] = {}
        if json_file is not None:
            files[json_file] = result.to_json()
        if trace_file is not None:
            files[trace_file] = json.dumps(chrome_trace(lab.last_of_each_model()))
        if picture_file is not None and result.runs:
            files[picture_file] = picture(result, f"migpool: {scenario.name}")
        if report is not None:
            files[report] = document([result], f"migpool: {result.scenario}")
        write_all(files)
    if report is not None and report != STDOUT:
        console.print(f"\n{reported(report)}", markup=False, highlight=False, soft_wrap=True)
    if came:
        made = sum(run.outcome == "completed" for run in result.runs)
        screen.print(f"migpool: cancelled; {made} of {count_of(len(planned), 'run')} had completed", highlight=False)
        return interrupt.exit_code
    bad = [run for run in result.runs if not run.succeeded]
    if bad:
        more = f" (and {len(bad) - 1} more of {len(result.runs)} runs)" if bad[1:] else ""
        if (unmade := len(planned) - len(result.runs)) > 0:
            more += f"; {count_of(unmade, 'run')} not made, since it is alike under every model"
        screen.print(f"migpool: {run_line(bad[0])}{more}", markup=False, highlight=False, soft_wrap=True)
        for pair in [run.pair for run in lab.runs if run.result is bad[0]] if invocation.debug else []:
            screen.print(
                pair.source.traceback + pair.destination.traceback, markup=False, highlight=False, soft_wrap=True
            )
    longest = max(result.runs, key=lambda run: run.downtime_ms or 0.0, default=None)
    long = "" if longest is None else too_long((longest.downtime_ms or 0.0) / 1e3, allowed)
    if long and longest is not None:
        under = f"under {longest.model} " if len({run.model for run in result.runs}) > 1 else ""
        screen.print(f"migpool: {under}{long}", markup=False, highlight=False, soft_wrap=True)
    return 1 if bad or long else 0


def _show(result: LabResult, console: Console, *, whole: bool, one: bool) -> None:
    """Print the table and what it means.

    Arguments:
        whole: nothing was cancelled.
        one: it is of one model.
    """
    console.print(render(result, console.width))
    if whole and (why := limit_line(result)):
        console.print(Text(why))
    if one and (drawn := switchover(result, console.width)) is not None:
        console.print(drawn)
        shown = next(run for run in reversed(result.runs) if run.analysis is not None)
        console.print(Text("\nDevices", style="bold"), device_table(shown, console.width))


def _report_path(result: LabResult, path: Path | None, default: bool, screen: Console) -> Path | None:
    """Where the report is to be, if it is wanted and there is something to tell."""
    if not any(run.outcome == "completed" for run in result.runs) or (path is None and not default):
        return None
    if path is None:
        path = REPORT
        try:
            check_writable(path)
        except UsageError as error:
            # Nobody asked for it: that it cannot be had here is no reason to fail.
            screen.print(f"migpool: no report: {error}; --report says where else", markup=False, highlight=False)
            return None
    return path


class _Logging:
    """A watcher that also logs changes of state."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._log = structlog.get_logger()

    def began(self, planned: Planned) -> None:
        self._watcher.began(planned)

    def observed(self, planned: Planned, now: Observed) -> None:
        for side, state in now.changes:
            self._log.info("state", model=planned.label, repeat=planned.repeat, side=side, state=state.value)
        self._watcher.observed(planned, now)

    def ended(self, run: Run) -> None:
        result = run.result
        self._log.info(
            "run over", model=result.model, repeat=result.repeat, outcome=result.outcome, verified=result.verified
        )
        self._watcher.ended(run)
