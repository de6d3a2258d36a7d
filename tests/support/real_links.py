"""Links in the kernel, for tests that need root and veth."""

from __future__ import annotations

from pathlib import Path

import pytest

from migpool.lab.run.link.process import refusal
from migpool.lab.run.pair_result import PairResult
from migpool.lab.run.process_pair import ProcessPair
from migpool.scenario.schema import Scenario, parse_scenario


def need_links() -> None:
    """Skip the test where there can be none."""
    if reason := refusal():
        pytest.skip(reason)


def over(link: dict[str, object], **devices: object) -> Scenario:
    """Two small devices over two channels and such a link."""
    options = {"profile": "instant", "size": "2MiB", **devices}
    table = {
        "name": "linked",
        "devices": [{"plugin": "vfio", "count": 2, "options": options}],
        "limits": {"peer": 20, "connect": 10, "accept": 30},
        "link": link,
    }
    return parse_scenario(table, "linked")


def migrated(scenario: Scenario) -> PairResult:
    """One migration under ``pool``."""
    return ProcessPair(scenario, "pool", 7, "linked").run(lambda _: None, lambda: False)


def networks_of(processes: list[int]) -> set[str]:
    """The network namespaces in which these processes are, as the kernel calls them."""
    found = set()
    for process in processes:
        try:
            found.add(str(Path(f"/proc/{process}/ns/net").readlink()))
        except OSError:
            continue
    return found


def all_networks() -> set[str]:
    """Those of every process here."""
    return networks_of([int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal()])
