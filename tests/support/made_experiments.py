"""Made-up experiments and runs for the tests of the experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from migpool.experiments.form import Experiment, parse_experiment
from migpool.lab.run.result import MemoryResult, RunResult, ThreadCounts
from migpool.scenario.schema import Scenario

FILE = """
id = "T1"
title = "Slow against fast"
claim = "slow is slower"
by = "a test"
method = "Slow and fast are run."
depends = "how slow it is"

[scenario]
name = "t1"

[[scenario.devices]]
plugin = "vfio"
count = 2
options = {profile = "tiny"}

[scenario.channels]
count = 2
transport = "unix"

[scenario.memory]
budget = "256KiB"
chunk = "64KiB"

[[variants]]
name = "slow"
model = "inline"

[[variants]]
name = "fast"
model = "per-device"
set = {"devices.0.count" = 1}

[[comparisons]]
name = "slow against fast"
of = "slow"
to = "fast"
least = 1.2

[effort]
precision = 0.05
seconds = 60
quick = 0.1
"""

CANCELS = """
id = "T2"
title = "Cancels"
claim = "nothing is left"
by = "a test"
method = "Cancels are counted."

[scenario]
name = "t2"

[[scenario.devices]]
plugin = "vfio"
options = {profile = "tiny"}

[scenario.memory]
budget = "256KiB"
chunk = "64KiB"

[cancels]
models = ["inline", "per-device:switchover"]
waits = 3
quick = 2
"""


def experiment(text: str = FILE) -> Experiment:
    return parse_experiment(text, "made up")


def a_run(model: str, downtime: float | None, *, used: int = 1, error: str = "") -> RunResult:
    """A run that was verified, or failed if it has no downtime."""
    return RunResult(
        model=model,
        repeat=1,
        seed=1,
        outcome="failed" if downtime is None else "completed",
        verified=downtime is not None,
        downtime_ms=downtime,
        total_ms=None if downtime is None else downtime * 2,
        threads=ThreadCounts(source=3, destination=4),
        attribution={} if downtime is None else {"device read": downtime},
        memory=MemoryResult(budget_bytes=4, high_water_bytes=used, peak_rss_bytes=1),
        error=error,
    )


class Made:
    """Makes runs without migrating.

    Arguments:
        downtimes: of each model, round by round, the last one again and again; ``None`` for a run that fails.
        used: bytes of a budget of 4 that each run uses.

    Attributes:
        order: the models in the order in which they were asked for.
    """

    def __init__(self, downtimes: Mapping[str, Sequence[float | None]], used: int = 1) -> None:
        self._downtimes = downtimes
        self._used = used
        self.order: list[str] = []

    def __call__(
        self, scenario: Scenario, model: str, repeat: int, where: str, stop: Callable[[], bool]
    ) -> RunResult | None:
        del scenario, where
        if stop():
            return None
        self.order.append(model)
        times = self._downtimes[model]
        time = times[min(repeat, len(times)) - 1]
        return a_run(model, time, used=self._used, error="" if time is not None else "the device broke")


def never() -> bool:
    return False


def silent(line: str) -> None:
    del line
