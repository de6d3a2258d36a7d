"""Several machines that leave a host at once: migrations side by side, over one link, with threads in common."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event

from migpool.lab.run.link.process import RealLink
from migpool.lab.run.pair_result import PairResult
from migpool.lab.run.process_pair import ProcessPair, ThisHost
from migpool.scenario.schema import Scenario
from migpool.schedulers.host_threads import HostThreads


@dataclass(frozen=True, slots=True)
class Leaving:
    """What a host does.

    Arguments:
        machines: how many leave, all of them as the scenario says.
        at_once: how many at the same time.
        threads: what models that share a host's threads, such as ``pool:auto``, have together at the source.
    """

    machines: int
    at_once: int
    threads: int


def leave(
    scenario: Scenario, model: str, seed: int, where: str, leaving: Leaving, stop: Callable[[], bool]
) -> list[PairResult]:
    """Migrate all of them.

    Arguments:
        seed: of the first; each has its own.
        where, stop: as for :class:`~migpool.lab.run.process_pair.ProcessPair`, asked by several threads.

    Returns:
        How each run ended.

    Raises:
        UsageError: a side refuses to begin, because of the scenario or the model; or the link cannot be made.
    """
    with ExitStack() as stack:
        threads = HostThreads.of(leaving.threads)
        stack.callback(threads.close)
        link = None
        if scenario.link.imposed:
            link = RealLink(scenario.link, seed)
            stack.callback(link.end)
        hosts = ThisHost(link, scenario.link.clock_offset, threads)

        broken = Event()

        def one(number: int) -> PairResult:
            try:
                pair = ProcessPair(scenario, model, seed + number, where, hosts)
                return pair.run(lambda _: None, lambda: broken.is_set() or stop())
            except BaseException:
                broken.set()  # what nobody will hear of need not go on
                raise

        crew = stack.enter_context(ThreadPoolExecutor(leaving.at_once, "leaving"))
        return list(crew.map(one, range(leaving.machines)))
