"""What ``send`` and ``receive`` do alike: one side of one migration or of many in a row, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

import structlog

from migpool.cli.interrupt import Interrupt
from migpool.cli.invocation import Invocation
from migpool.cli.logs import announce, configure
from migpool.cli.options import Tuning
from migpool.cli.output import STDOUT, check_writable, complain, say, write_all
from migpool.device import Side
from migpool.lab.report.chrome_trace import chrome_trace
from migpool.lab.report.table import run_line
from migpool.lab.result_of_sides import lab_result, source_result, traced_source
from migpool.lab.run.long_calls import Told, long_calls
from migpool.lab.run.result import RunResult
from migpool.lab.run.side import SideResult, SideRun, footprint, warnings_told
from migpool.scenario.model_syntax import parse_model
from migpool.scenario.schema import load_scenario
from migpool.transport.address import Address
from migpool.transport.credentials import End, credentials
from migpool.transport.listener import check_exposure

TICK = 0.25
LATE = "cancelled after the migration had completed"


class OneSide:
    """One side of migrations in a row.

    Arguments:
        scenario_name: what to migrate.
        address: where to connect to, or to listen.
        count: how many; 0 until cancelled.
        seed: instead of the scenario's.
        tuning: what of the scenario is to be otherwise.
        insecure: listen where strangers can connect, and take whatever process is at the other end.

    Attributes:
        warnings: of the last migration, a line each.

    Raises:
        UsageError: one of them is wrong.
    """

    def __init__(
        self,
        invocation: Invocation,
        scenario_name: str,
        model: str,
        side: Side,
        address: str,
        count: int,
        seed: int | None,
        tuning: Tuning,
        *,
        insecure: bool = False,
    ) -> None:
        configure(invocation)
        self.scenario = tuning.applied(load_scenario(scenario_name))
        self.model = parse_model(model)
        self.count = count
        self.seed = self.scenario.seed if seed is None else seed
        self.listened = False
        self.warnings: list[str] = []
        self._invocation = invocation
        self._side: Side = side
        self._address = Address.parse(address)
        self._insecure = insecure
        trust = self.scenario.channels
        end: End = "server" if side == "destination" else "client"
        encrypted = credentials(trust.tls, end, trust.tls_hostname) is not None
        if side == "destination":
            check_exposure(self._address, exposed=encrypted or insecure)
        self._where = scenario_name
        self._log = structlog.get_logger()

    def numbers(self) -> Iterator[int]:
        """1, 2, 3 ... as many as there are to be."""
        return iter(range(1, self.count + 1)) if self.count else count(1)

    def migrate(self, number: int, interrupt: Interrupt) -> SideResult:
        """Carry out one migration; the first signal cancels it.

        Raises:
            MigpoolError: the machine cannot be built.
        """
        self.listened = False
        run = SideRun(
            self.scenario,
            self.model,
            self._side,
            self.seed,
            self._address,
            where=self._where,
            insecure=self._insecure,
            watch=lambda state: self._log.info("state", migration=number, side=self._side, state=state.value),
            listening=self._say_where,
        )
        self.warnings = []
        cancelled = False
        with warnings_told(self._warned):
            run.start()
            calls = Told()
            while not run.join(TICK):
                for call in calls.due(long_calls(self._side)):
                    complain(str(call))
                if interrupt() and not cancelled:
                    cancelled = True
                    run.cancel()
        left = footprint()
        if left is not None:
            self._log.info("left behind", migration=number, side=self._side, **asdict(left))
        return run.result()

    def show_traceback(self, result: SideResult) -> None:
        """With ``--debug``, of what a plug-in raised that it must not."""
        if self._invocation.debug:
            for line in result.traceback.splitlines():
                complain(line)

    def _warned(self, text: str) -> None:
        self.warnings.append(f"at the {self._side}, {text}")
        complain(f"warning: {text}")

    def _say_where(self, address: Address) -> None:
        # A port that the system chose stays the same for the migrations that follow.
        self._address = address
        self.listened = True
        announce(self._invocation, "listening on", address=str(address))


def send_machines(side: OneSide, *, json_file: Path | None, trace_file: Path | None) -> int:
    """Send one machine after the other, until one fails, and return the exit code."""
    check_writable(json_file, trace_file)
    runs: list[RunResult] = []
    last: SideResult | None = None
    code = 0
    with Interrupt(complain) as interrupt:
        for number in side.numbers():
            last = side.migrate(number, interrupt)
            run = source_result(side.model.name, number, side.seed, last, side.warnings)
            if json_file is not None or not runs:
                runs.append(run)
            if interrupt():
                complain(f"cancelled: {last.error}" if last.error else LATE)
                code = interrupt.exit_code
                break
            if not run.succeeded:
                complain(run_line(run))
                side.show_traceback(last)
                code = 1
                break
            (complain if STDOUT in (json_file, trace_file) else say)(run_line(run))
    files: dict[Path, str] = {}
    if json_file is not None:
        files[json_file] = lab_result(side.scenario, runs, None).to_json()
    if trace_file is not None and last is not None:
        files[trace_file] = json.dumps(chrome_trace([traced_source(side.model.name, last)]))
    write_all(files)
    return code


def receive_machines(side: OneSide) -> int:
    """Receive one machine after the other, and return the exit code.

    A given number of them ends with the first that fails; without a number it goes on until it is cancelled.
    """
    with Interrupt(complain) as interrupt:
        for number in side.numbers():
            result = side.migrate(number, interrupt)
            begin, report = f"{side.model.name}, run {number}: {result.report.outcome.value}", result.report
            if result.succeeded:
                say(f"{begin}, {report.bytes} bytes received, the machine runs here")
            elif report.running:
                complain(f"{begin}: the machine runs here, but {result.error}")
            elif not interrupt():
                complain(f"{begin}: {result.error}")
            if interrupt():
                complain(LATE if result.succeeded else f"cancelled: {result.error}")
                return interrupt.exit_code
            if result.succeeded:
                continue
            side.show_traceback(result)
            if side.count or not side.listened:
                return 1
    return 0
