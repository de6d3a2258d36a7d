"""A scenario's link in the kernel: it is what was asked for, its use is told, and nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from migpool.lab.result_of_sides import run_result
from migpool.lab.run.clocks import EXCHANGES
from migpool.lab.run.link.keeper import MOST, Counting
from migpool.lab.run.link.process import RealLink
from migpool.lab.run.result import RunResult
from migpool.scenario.schema import LinkTable
from tests.support.forking import as_a_user_does
from tests.support.real_links import all_networks, migrated, need_links, networks_of, over

LIMIT = 40.0
STATE = 2 * 2 << 20


def test_packets_take_their_time_and_the_clocks_are_told_apart() -> None:
    need_links()
    pair = migrated(over({"rate": "800Mbit/s", "delay": "3ms", "clock_offset": "3s"}))
    assert pair.verified, pair.error
    source, destination = (side.report for side in pair.both or ())
    assert source.clock == "exchanges"
    # No packet is faster than the link.
    assert [one.name for one in source.connections] == ["main", "0", "1"]
    assert all(one.least_rtt_ms >= 6.0 for one in source.connections)
    assert sum(one.bytes for one in source.connections) >= STATE
    # What the destination did is on the source's clock now, although its own was three seconds ahead.
    assert all(
        source.began < span.begin < source.ended + 1e9 for span in destination.spans if span.begin > source.stopped
    )
    run = run_result("pool", 1, 7, pair)
    assert run.link is not None
    assert run.link.clock_offset_ms == 3000
    assert run.link.true_downtime_ms is not None
    assert pair.clocks is not None
    assert pair.clocks.exchanges == EXCHANGES + 1
    # The downtime is off by no more than is said; the link's own round trip is most of that.
    assert pair.clocks.uncertainty / 1e6 >= 3.0
    assert abs((run.downtime_ms or 0.0) - run.link.true_downtime_ms) <= pair.clocks.uncertainty / 1e6
    assert RunResult.model_validate_json(run.to_json()) == run


def test_the_rate_alone_is_the_kernels_and_holds() -> None:
    need_links()
    pair = migrated(over({"rate": "400Mbit/s"}))
    assert pair.verified, pair.error
    run = run_result("pool", 1, 7, pair)
    assert run.link is not None
    assert (run.link.by, run.link.relay, run.link.true_downtime_ms) == ("veth, tbf", None, None)
    assert run.clock == "monotonic"
    # The bucket lets 128 KiB go at once; what is over that takes its time at the rate.
    assert (run.downtime_ms or 0.0) >= (STATE - (128 << 10)) / 50e6 * 1e3
    assert run.link.forth[-1][1] >= STATE
    assert run.link.back[-1][1] > 0


def test_what_is_lost_is_sent_anew() -> None:
    need_links()
    pair = migrated(over({"delay": "100us", "loss": 0.02}, size="512KiB"))
    assert pair.verified, pair.error
    run = run_result("pool", 1, 7, pair)
    assert sum(one.packets_again for one in run.connections) > 0
    assert run.link is not None
    if run.link.relay is not None:
        assert run.link.relay.lost > 0
        # A packet is lost by itself, and not with all that was sent in one call.
        assert run.link.relay.packets > 2 * (512 << 10) / run.link.mtu


def test_a_link_that_is_not_to_be_made_is_not() -> None:
    pair = migrated(over({"rate": "1MiB/s", "impose": False}))
    assert pair.verified, pair.error
    assert pair.link is None


def test_nothing_is_left_when_a_link_has_ended() -> None:
    need_links()
    link = RealLink(LinkTable(delay=0.001), 1)
    names = {str(Path(f"/proc/self/fd/{network}").readlink()) for network in link.networks.values()}
    assert len(names) == 2
    use = link.use()
    link.end()
    assert use.delay_ms == 1.0
    assert not names & all_networks()


@pytest.mark.parametrize("victim", ["parent", "keeper"])
def test_nothing_is_left_after_a_kill(victim: str, tmp_path: Path) -> None:
    need_links()
    scenario = tmp_path / "slow.toml"
    scenario.write_text(
        'name = "slow"\n[[devices]]\nplugin = "vfio"\noptions = {profile = "instant", size = "64MiB"}\n'
        '[link]\nrate = "1MiB/s"\ndelay = "1ms"\n[limits]\npeer = 2\n'
    )
    with as_a_user_does(), (tmp_path / "said").open("w") as said:
        command = [sys.executable, "-m", "migpool", "run", str(scenario)]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
    end = time.monotonic() + LIMIT
    try:
        while len(made := networks_of(_below(run.pid)) - networks_of([os.getpid()])) < 2:
            assert time.monotonic() < end
            assert run.poll() is None
            time.sleep(0.05)
        keeper = next(pid for pid in _below(run.pid) if b"link.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(run.pid if victim == "parent" else keeper, signal.SIGKILL)
        run.wait(LIMIT)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == (-signal.SIGKILL if victim == "parent" else 1)
    assert "Traceback" not in (tmp_path / "said").read_text()
    while made & all_networks():
        assert time.monotonic() < end
        time.sleep(0.05)


def _below(process: int) -> list[int]:
    """The children of a process, and theirs."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *_below(child))]


def test_who_may_not_is_told_in_a_line(tmp_path: Path) -> None:
    scenario = tmp_path / "linked.toml"
    scenario.write_text('name = "l"\n[[devices]]\nplugin = "vfio"\n[link]\nrate = "1Gbit/s"\n')
    command = [sys.executable, "-m", "migpool", "run", str(scenario)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "needs" in done.stderr
    assert "link.impose = false" in done.stderr or "pip install" in done.stderr


def test_a_clock_that_is_shifted_is_not_taken_for_this_hosts() -> None:
    need_links()
    program = (
        "import time; from migpool.migration.report import boot_id\n"
        "from migpool.lab.run.link.namespaces import shift_clocks\n"
        "before, boot = time.monotonic(), boot_id(); shift_clocks(2.5)\n"
        "assert time.monotonic() > before + 2.4; assert boot_id() != boot\n"
        "print(boot_id() == boot_id())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_counters_that_are_looked_at_for_long_are_kept_coarser() -> None:
    counting = Counting(tick=0.0)
    for at in range(3 * MOST):
        counting.look((at, 0))
    rows = counting.way(1)
    assert MOST // 2 <= len(rows) <= MOST
    assert rows == sorted(rows)
    assert len(counting.way(2)) == 2  # nothing came back: its beginning and its end say that
