"""A scenario out of what was measured of a QEMU's migration: simulated as QEMU, it takes as long as it took; and what
it predicts of another way is what QEMU then took that way."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import UsageError
from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.measured import measured
from migpool.lab.qemu.scenario import RAM_NAME, scenario_from
from migpool.scenario.messages import toml_table
from migpool.scenario.schema import Scenario, parse_scenario
from migpool.sim.machines import predicted
from migpool.wire.returnpath import Shut, encode
from tests.support.made_recordings import Made, Role, recording
from tests.support.qemu_logs import NAMES, Downtime, Threaded, real

QEMU_STREAM = Path(__file__).parent.parent / "data" / "qemu-streams" / "q35-min.mig"


def scenario_of(*sources: Path) -> Scenario:
    return parse_scenario(toml_table(scenario_from(sources), "made"), "made")


def simulated(scenario: Scenario, model: str) -> float:
    """Milliseconds."""
    return predicted(scenario, model) * 1e3


def took(name: str) -> float:
    downtime = explain(*real(name)).result.runs[0].downtime_ms
    assert downtime is not None
    return downtime


@pytest.mark.parametrize("name", NAMES)
def test_a_real_downtime_simulated_the_way_it_went_takes_as_long(name: str) -> None:
    way = "qemu:transfer" if name == "vfio-2" else "qemu"
    assert simulated(scenario_of(*real(name)), way) == pytest.approx(took(name), rel=0.02)


@pytest.mark.parametrize(
    ("measured_as", "model", "other"), [("vfio-2-off", "qemu:transfer", "vfio-2"), ("vfio-2", "qemu", "vfio-2-off")]
)
def test_a_real_downtime_is_predicted_from_one_that_went_the_other_way(
    measured_as: str, model: str, other: str
) -> None:
    assert simulated(scenario_of(*real(measured_as)), model) == pytest.approx(took(other), rel=0.10)


@given(
    st.lists(st.tuples(st.integers(20, 20_000), st.integers(20, 20_000)), min_size=2, max_size=12),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 3_000),
    st.booleans(),
)
def test_what_devices_took_is_what_the_scenario_says_and_adds_up(
    times: list[tuple[int, int]], stop: int, start: int, channel: int, dated: bool
) -> None:
    devices = [("ram", times[0][0], 0), *((f"device-{at}", *one) for at, one in enumerate(times[1:]))]
    made = Downtime(devices, stop=stop, start=start, network=0, tail=0, channel=channel, dated=dated)
    with TemporaryDirectory() as directory:
        source, destination, end = made.logs(Path(directory))
        scenario = scenario_of(source, destination)
        parts = measured(explain(source, destination)).parts
    for part, (name, save, load) in zip(parts, devices, strict=True):
        assert part.name == name
        saved = part.save + part.read + part.channel
        assert saved == pytest.approx((save + (channel if part.ram else 0)) * 1000, abs=2000)
        if not part.ram:
            assert part.load == pytest.approx(load * 1000, abs=2000)
    assert simulated(scenario, "qemu") == pytest.approx(end / 1e3, abs=0.005 * len(times))


@given(st.integers(1, 6), st.integers(500, 20_000), st.integers(500, 20_000), st.integers(500, 20_000))
def test_threads_that_went_beside_each_other_do_so_in_the_simulation(
    count: int, read: int, load: int, config: int
) -> None:
    with TemporaryDirectory() as directory:
        source, destination, end = Threaded(count, read, load, config).logs(Path(directory))
        scenario = scenario_of(source, destination)
    assert simulated(scenario, "qemu:transfer") == pytest.approx(end / 1e3, rel=0.02, abs=0.2)
    one_after_the_other = (100 + count * (read + load + config) + 110) / 1e3
    assert simulated(scenario, "qemu") == pytest.approx(one_after_the_other, rel=0.05, abs=0.3)


def test_channels_that_are_waited_for_count_each() -> None:
    source, destination = real("vfio-2-off")
    scenario = scenario_of(source, destination)
    assert scenario.channels.count == 4
    (ram,) = (entry for entry in scenario.devices if entry.options["name"] == RAM_NAME)
    each = ram.options["channel"]
    assert isinstance(each, float)
    assert 0.001 < each < 0.004
    more = scenario.model_copy(update={"channels": scenario.channels.model_copy(update={"count": 8})})
    assert simulated(more, "qemu") - simulated(scenario, "qemu") == pytest.approx(4 * each * 1e3, rel=0.01)


def made_recording(directory: Path) -> Path:
    """QEMU's own stream, its last part at millisecond 130, and the destination's last word at 230."""
    data = QEMU_STREAM.read_bytes()
    switchover, ram_end = 44036, 44059
    timed = [(0, data[:switchover]), (100, data[switchover:ram_end]), (130, data[ram_end:])]
    return recording(directory, [Made(Role.MAIN, None, timed, [(230, encode(Shut(0)))])])


def test_a_recording_says_how_large_everything_is_and_how_long_each_phase_took(tmp_path: Path) -> None:
    scenario = scenario_of(made_recording(tmp_path / "made"))
    sizes = {str(one.options["name"]): one.options.get("config_size") for one in scenario.devices}
    # What inspect shows, and the heads: the next section begins where this one ends.
    assert (sizes["timer"], sizes["cpu"], sizes["apic"]) == (44107 - 44059, 46017 - 44144, 46395 - 46191)
    assert scenario.machine.name == "pc-q35-10.0"
    assert simulated(scenario, "qemu") == pytest.approx(130.0, rel=0.01)


def test_logs_and_a_recording_together_have_the_times_of_the_one_and_the_sizes_of_the_other(tmp_path: Path) -> None:
    logs = real("e1000e-3-qemu-11")
    alone, both = scenario_of(*logs), scenario_of(*logs, made_recording(tmp_path / "made"))
    assert len(alone.devices) == len(both.devices)
    for one, other in zip(alone.devices, both.devices, strict=True):
        times = ("name", "stop", "read", "save", "write", "load", "start", "channel")
        assert [one.options.get(key) for key in times] == [other.options.get(key) for key in times]
    cpu = next(one for one in both.devices if one.options["name"] == "cpu")
    assert cpu.options["config_size"] == 46017 - 44144


def test_where_each_number_comes_from_stands_in_it(tmp_path: Path) -> None:
    text = scenario_from(real("vfio-2-off"))
    comments = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    for said in ("Measured: 200 ms of downtime", "times: ", "clocks: ", "config_size: guessed", "remark: "):
        assert said in comments
    text = scenario_from([made_recording(tmp_path / "made")])
    assert "shared out evenly" in text
    assert "as recorded in made, heads included: exact" in text


def test_what_is_not_enough_is_refused(tmp_path: Path) -> None:
    source, destination = real("e1000e-3-qemu-11")
    made = made_recording(tmp_path / "made")
    stranger, _, _ = Downtime([("ram", 10, 10), ("nobody's", 10, 10)]).logs(tmp_path)
    for sources, said in (
        ([source], "give both sides' logs"),
        ([source, destination, source], "one migration at a time"),
        ([made, made], "one migration at a time"),
        ([stranger, tmp_path / "destination.log", made], "it is of another machine"),
        ([tmp_path], "is no recording"),
    ):
        with pytest.raises(UsageError, match=said):
            scenario_from(sources)
