"""What is advised: of made downtimes with one cause each what removes it, of those without one nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from pydantic import JsonValue

from migpool.lab.qemu.advise import Advised, advise
from migpool.lab.qemu.advise_recording import advise_recording
from migpool.lab.qemu.explain import explain
from migpool.wire.commands import switchover_start
from tests.support.made_recordings import Made, Role, begin, end, first, ram_end, recording, state
from tests.support.qemu_logs import Downtime, Threaded, real

EVEN = [("ram", 60, 60), *((f"0000:00:{at:02x}.0/x{at}", 60, 60) for at in range(40))]
"""Nothing of it is worth a twentieth."""
QUIET = Downtime(EVEN, stop=50, start=50, network=50, tail=10)


def advised(made: Downtime | Threaded, directory: Path) -> Advised:
    source, destination, _ = made.logs(directory)
    return advise(explain(source, destination))


def test_where_nothing_helps_nothing_is_advised(tmp_path: Path) -> None:
    found = advised(QUIET, tmp_path)
    assert found.advice == []
    assert "No change that" in "\n".join(found.lines())
    assert "No change that" in found.markdown()


@pytest.mark.parametrize(
    ("made", "about", "named", "worth"),
    [
        (replace(QUIET, devices=[*EVEN, ("0000:01:00.0/slow", 50, 4000)]), "device", "0000:01:00.0/slow", 4.0),
        (replace(QUIET, devices=[*EVEN, ("0000:01:00.0/slow", 4000, 50)]), "device", "its save takes", 4.0),
        (replace(QUIET, stop=3000), "machine", "stops with the machine", 3.0),
        (replace(QUIET, start=3000), "machine", "starts with the machine", 3.0),
        (replace(QUIET, behind=9000), "downtime limit", "keep up", 9.0),
        (replace(QUIET, channel=3000), "channels", "channel 0", 3.0),
        (Threaded(count=4, config=2000), "device", "big lock", 6.0),
    ],
)
def test_what_limits_it_comes_first_with_what_it_is_worth(
    made: Downtime | Threaded, about: str, named: str, worth: float, tmp_path: Path
) -> None:
    found = advised(made, tmp_path)
    first = found.advice[0]
    assert (first.about, named in first.do) == (about, True), found.advice
    assert 0.5 * worth <= first.worth_ms <= 1.05 * worth
    assert all(0.05 * found.downtime_ms <= one.worth_ms <= found.downtime_ms for one in found.advice)
    assert f"| {about} | " in found.markdown()


LONG_ROUND = replace(QUIET, devices=[("ram", 20_000, 60), *EVEN[1:]])


@pytest.mark.parametrize(
    ("pages", "about", "line"),
    [
        ((4000, 3900), {"downtime limit": 20, "dirty pages": 20, "bandwidth": 10}, ""),
        ((40_000, 1000, 100), {"downtime limit": 10, "bandwidth": 5}, ""),  # no more than 100 pages can take
        ((0,), {}, "with 0 pages left to send it is the round's own cost"),
        ((), {}, "the logs do not say how many pages were left"),
    ],
)
def test_what_is_advised_for_the_last_round_of_ram_is_worth_no_more_than_its_pages(
    pages: tuple[int, ...], about: dict[str, float], line: str, tmp_path: Path
) -> None:
    found = advised(replace(LONG_ROUND, pages=pages), tmp_path)
    assert {one.about: one.worth_ms for one in found.advice} == {
        name: pytest.approx(worth, rel=0.02) for name, worth in about.items()
    }
    assert all(one.sure == "untried" for one in found.advice)
    assert ("nothing is advised for it" in found.why) is bool(line)
    assert line in next(found.lines())
    assert line in found.markdown()


@pytest.mark.parametrize(
    ("multifd", "limit", "said"),
    [
        (False, 1 << 27, ["Raise max-bandwidth (128 MiB/s)", "Switch multifd on"]),
        (True, 0, ["Raise max-bandwidth, if it is set"]),
    ],
)
def test_what_the_monitor_says_of_the_migration_is_taken_into_account(
    multifd: bool, limit: int, said: list[str], tmp_path: Path
) -> None:
    source, destination, _ = replace(LONG_ROUND, pages=(9000, 3900)).logs(tmp_path)
    found = explain(source, destination)
    told: JsonValue = {"capabilities": {"multifd": multifd}, "parameters": {"max-bandwidth": limit}}
    found.result.settings["monitors"] = {"source": told}
    advice = [one.do for one in advise(found).advice if one.about in ("bandwidth", "channels")]
    assert [do.startswith(begin) for do, begin in zip(advice, said, strict=True)] == [True] * len(said), advice


def test_flat_views_that_loads_build_again_and_again_are_told(tmp_path: Path) -> None:
    cards = [(f"0000:02:{at:02x}.0/card", 10, 1000) for at in range(4)]
    made = replace(QUIET, devices=[*EVEN, *cards], views={name: (16, 50) for name, _, _ in cards})
    (told,) = [one for one in advised(made, tmp_path).advice if "flat views" in one.do]
    assert "once for all 4 devices" in told.do
    assert told.worth_ms == pytest.approx(3 * 0.8, abs=0.1)


def test_vfio_devices_on_the_migrations_own_thread_are_told_of_multifd_transfer_and_others_are_not(
    tmp_path: Path,
) -> None:
    devices = [*EVEN, *((f"0000:0{at}:00.0/vfio", 2000, 2000) for at in range(1, 5))]
    (off,) = [one for one in advised(replace(QUIET, devices=devices), tmp_path).advice if one.about.startswith("multi")]
    assert 6.0 <= off.worth_ms <= 16.0
    assert not any(one.about == "multifd transfer" for one in advised(Threaded(), tmp_path).advice)


def test_the_order_is_worth_what_the_best_of_all_orders_is(tmp_path: Path) -> None:
    """The rule, against every order."""
    times = [(3000, 200), (200, 3000), (1000, 900), (400, 2000)]
    devices = [(f"d{at}", save, load) for at, (save, load) in enumerate(times)]
    (order,) = [
        one
        for one in advised(replace(QUIET, devices=[("ram", 10, 10), *devices]), tmp_path).advice
        if one.about == "load order"
    ]

    def takes(plan: tuple[tuple[int, int], ...]) -> int:
        saved = loaded = 0
        for save, load in plan:
            saved += save
            loaded = max(loaded, saved) + load
        return loaded

    shortest = min(takes(plan) for plan in permutations(times))
    assert order.worth_ms == pytest.approx((takes(tuple(times)) - shortest) / 1e3, abs=0.01)
    assert "d1" in order.do


@pytest.mark.parametrize("name", ["e1000e-16", "vfio-2", "checkpoints-alone", "e1000e-3-qemu-11"])
def test_of_real_logs_no_more_is_promised_than_there_was(name: str) -> None:
    found = advise(explain(*real(name)))
    assert found.advice
    assert all(0 < one.worth_ms < found.downtime_ms for one in found.advice)
    assert [one.worth_ms for one in found.advice] == sorted((one.worth_ms for one in found.advice), reverse=True)
    # These machines were idle: no limit would have left less RAM for the last round.
    assert not any("downtime-limit" in one.do for one in found.advice)


@pytest.mark.parametrize(("one", "other", "named"), [(900, 10, "channel 0"), (0, 900, "channel 1"), (900, 900, "")])
def test_a_recording_tells_of_channels_that_carry_more_than_others(
    one: int, other: int, named: str, tmp_path: Path
) -> None:
    main = Made(
        Role.MAIN,
        None,
        [(0, begin()), (500, switchover_start()), (501, ram_end()), (700, end())],
    )
    channels = [
        Made(Role.MULTIFD, at, [(1 + at, first(at)), (550, state(f"d{at}", 0, 1 + size * 4096))])
        for at, size in enumerate((one, other))
    ]
    found = advise_recording(recording(tmp_path / "made", [main, *channels]))
    assert found.downtime_ms == 200
    uneven = [advice for advice in found.advice if advice.about == "channels"]
    assert [named in advice.do for advice in uneven] == ([True] if named else [])
    assert all(0 < advice.worth_ms <= 900 * 0.1 / 2 + 0.1 for advice in uneven)  # half of it is the other channel's
