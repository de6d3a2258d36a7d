"""A QEMU's trace logs: what is read of them, whatever else is in them; and what is refused, in one line."""

from __future__ import annotations

import gzip
import random
import re
import tracemalloc
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migpool.errors import UsageError
from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.log import read_log
from migpool.lab.run.result import LabResult, RunResult
from tests.support.qemu_logs import NAMES, Downtime, Log, lines_of, real
from tests.support.read_downtime import PARTS, TIE, grouped, microseconds, read_downtime
from tests.support.thinned import FEWER

TOOK = re.compile(r"vmstate_downtime_(save|load) type=(\S+) idstr=(.*) instance_id=(\d+) downtime=(\d+)")


def run_of(*logs: Path) -> RunResult:
    (run,) = explain(*logs).result.runs
    return run


@cache
def as_it_is(name: str) -> LabResult:
    """What is said of a real downtime."""
    return explain(*real(name)).result


@pytest.mark.parametrize("name", NAMES)
def test_a_real_downtime_is_that_of_the_checkpoints_and_its_parts_add_up(name: str) -> None:
    source, destination = real(name)
    expected = read_downtime(lines_of(source), lines_of(destination)).downtime
    run = run_of(source, destination)
    assert run.analysis is not None
    assert run.downtime_ms == pytest.approx(expected / 1e3, abs=1e-6)
    assert sum(run.attribution.values()) == pytest.approx(expected / 1e3, abs=1e-6)
    assert run.analysis.replayed_ms == pytest.approx(expected / 1e3, abs=1e-6)
    path = run.analysis.path
    assert (path[0].begin_ms, path[-1].end_ms) == (0.0, run.downtime_ms)
    assert all(before.end_ms == after.begin_ms for before, after in pairwise(path))
    assert not any(one.shorter_ms > expected / 1e3 for one in run.analysis.resources)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_are_what_another_reading_says(name: str) -> None:
    source, destination = real(name)
    run, read = run_of(source, destination), read_downtime(lines_of(source), lines_of(destination))
    assert sum(read.parts.values()) == read.downtime
    assert read.is_largest(run.attribution), (read, run.attribution)
    parts = grouped(run.attribution)
    assert set(parts) <= set(PARTS)
    for part, spent in read.parts.items():
        assert parts.get(part, 0) == pytest.approx(spent / 1e3, abs=TIE * read.downtime / 1e3), part


@pytest.mark.parametrize("name", NAMES)
def test_what_a_device_took_is_what_qemu_says(name: str) -> None:
    source, destination = real(name)
    run = run_of(source, destination)
    assert run.analysis is not None
    names = [device.name for device in run.devices]
    for path, verb, trace in (
        (source, "save", run.analysis.trace.source),
        (destination, "load", run.analysis.trace.destination),
    ):
        for line in lines_of(path):
            found = TOOK.search(line)
            if not found or found[1] != verb or found[2] == "iterable" or int(found[5]) < 100 or found[3] == "ram":
                continue
            device = found[3] if found[4] == "0" else f"{found[3]}#{found[4]}"
            spent = sum(
                span[4] - span[3]
                for span in trace.spans
                if span[0] == f"{verb}_config"
                and span[1] == names.index(device)
                and trace.threads[span[5]] == "migration"
            )
            assert spent == pytest.approx(int(found[5]) * 1000, abs=2000), device


def test_the_first_sentence_names_the_sixteen_cards() -> None:
    run = run_of(*real("e1000e-16"))
    assert run.analysis is not None
    assert run.analysis.why == (
        "the 16 e1000e are loaded one after the other. Without that: 13.2 ms instead of 39.0 ms."
    )
    growing = next(one for one in run.analysis.resources if one.resource == "each e1000e like the first")
    assert 10 < growing.shorter_ms < 20


def test_devices_of_vfio_have_threads_of_their_own() -> None:
    run = run_of(*real("vfio-2"))
    assert run.analysis is not None
    for side, doing in ((run.analysis.trace.source, "save"), (run.analysis.trace.destination, "load")):
        for device in ("0000:00:01.0/vfio", "0000:00:02.0/vfio"):
            assert f"{doing} {device}" in side.threads
    kinds = {span[0] for span in run.analysis.trace.destination.spans}
    assert {"write", "load_config", "starved", "wake", "start"} <= kinds
    assert any("are the tracing itself" in remark for remark in run.remarks)


def test_a_packed_log_is_read_as_it_is_and_a_damaged_one_refused(tmp_path: Path) -> None:
    source, destination = real("checkpoints-alone")
    text = "\n".join(lines_of(source)) + "\n"
    (tmp_path / "plain").write_text(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text.encode()))
    found = [run_of(one, destination).attribution for one in (source, tmp_path / "plain", tmp_path / "packed")]
    assert found[0] == found[1] == found[2]
    for name, data in (("short", source.read_bytes()[:-40]), ("bad", gzip.compress(text.encode())[:-30])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match="damaged") as caught:
            explain(tmp_path / name, destination)
        assert len(str(caught.value).splitlines()) == 1


OTHERS = (
    "",
    "char device redirected to /dev/pts/4 (label charserial0)",
    "2026-11-30 05:42:10.614+0000: starting up libvirt version: 10.0",
    "77@1700000000.000001:some_event_of_tomorrow with 3 arguments",
    "77@1700000000.000001:vmstate_downtime_load in another form",
    "1@99:vmstate_downtime_load",
    "2026-99-99T99:99:99.123456Z vmstate_downtime_checkpoint src-downtime-start",
    "\x00\ufffd" * 40,
    "x" * 70000,
)


@FEWER
@given(places=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(OTHERS)), max_size=12), which=st.sampled_from(NAMES))
def test_lines_that_are_not_known_are_passed_over_and_counted(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[float, str]], which: str
) -> None:
    source, destination = real(which)
    lines = lines_of(destination)
    for place, text in places:
        lines.insert(int(place * len(lines)), text)
    changed = tmp_path_factory.mktemp("logs") / "changed.log"
    changed.write_text("\n".join(lines) + "\n")
    before, after = as_it_is(which), explain(source, changed).result
    assert after.runs[0].attribution == before.runs[0].attribution
    assert after.runs[0].analysis == before.runs[0].analysis
    counted = after.settings["destination"]
    assert isinstance(counted, dict)
    strange = sum("in another form" in text or text.startswith("2026-99") for _, text in places)
    assert counted["forms not known"] == strange
    assert any("a form that is not known" in remark for remark in after.runs[0].remarks) is bool(strange)


@FEWER
@given(
    place=st.floats(0, 1),
    which=st.sampled_from(NAMES),
    whose=st.sampled_from([0, 1]),
    end=st.booleans(),
    alone=st.booleans(),
)
def test_a_log_that_was_cut_is_explained_or_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, place: float, which: str, whose: int, end: bool, alone: bool
) -> None:
    """Before or behind any byte of it."""
    logs = list(real(which))
    text = "\n".join(lines_of(logs[whose])) + "\n"
    at = int(place * len(text))
    cut = tmp_path_factory.mktemp("logs") / "cut.log"
    cut.write_text(text[:at] if end else text[at:])
    logs[whose] = cut
    if alone:
        logs = [cut]
    whole = [line for line in cut.read_text().splitlines() if line in lines_of(real(which)[whose])]
    needed = (("src-downtime-start", "src-non-iterable-saved"), ("-vm-started",))[whose]
    if all(any(line.endswith(point) for line in whole) for point in needed):
        run = run_of(*logs)
        assert sum(run.attribution.values()) == pytest.approx(run.downtime_ms)
        return
    with pytest.raises(UsageError) as caught:
        explain(*logs)
    assert len(str(caught.value).splitlines()) == 1
    assert str(cut) in str(caught.value)


def test_a_destinations_log_that_begins_within_its_loads_is_said_to_lack_some(tmp_path: Path) -> None:
    source, destination = real("e1000e-16")
    lines = lines_of(destination)
    middle = next(at for at, line in enumerate(lines) if "0000:00:08.0/e1000e instance_id=0 downtime" in line)
    cut = tmp_path / "cut.log"
    cut.write_text("\n".join(lines[middle:]))
    assert any("its first loads are missing" in remark for remark in run_of(source, cut).remarks)
    assert not any("its first loads" in remark for name in NAMES for remark in as_it_is(name).runs[0].remarks)


def test_checkpoints_alone_tell_the_phases(tmp_path: Path) -> None:
    logs = []
    for path in real("e1000e-16"):
        logs.append(tmp_path / path.stem)
        logs[-1].write_text("".join(f"{line}\n" for line in lines_of(path) if "vmstate_downtime_checkpoint" in line))
    run, whole = run_of(*logs), as_it_is("e1000e-16").runs[0]
    assert run.downtime_ms == whole.downtime_ms
    assert sum(run.attribution.values()) == pytest.approx(run.downtime_ms)
    assert run.attribution["load config"] == pytest.approx(27.3, abs=0.1)  # from all that is written to all loaded
    assert run.analysis is not None
    assert run.analysis.why.startswith("no one thing")
    assert run_of(logs[1]).downtime_ms == pytest.approx(0.3, abs=0.1)
    for path in Downtime([("ram", 90, 90), ("a", 50, 5000)], start=2000).logs(tmp_path)[:2]:
        path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if "checkpoint" in line))
    run = run_of(tmp_path / "source.log", tmp_path / "destination.log")
    assert run.analysis is not None
    assert run.analysis.why.startswith("no one thing. The largest part is load config")  # and no smaller start


def test_a_machine_that_went_on_from_where_it_came_to_is_explained_either_way(tmp_path: Path) -> None:
    """The one QEMU in the middle has the checkpoints of both sides in its log."""
    found = []
    for name, slow in (("first", 3000), ("second", 9000)):
        (directory := tmp_path / name).mkdir()
        source, destination, took = Downtime([("ram", 100, 100), ("a", 50, slow)]).logs(directory)
        found.append((source, destination, took / 1e3))
    (here, middle, first), (there, last, second) = found
    for log in (there, last):
        log.write_text("".join(f"{moved(line, 10**9)}\n" for line in log.read_text().splitlines()))
    middle.write_text(middle.read_text() + there.read_text())
    assert run_of(here, middle).downtime_ms == pytest.approx(first)
    assert run_of(middle, last).downtime_ms == pytest.approx(second)
    assert run_of(last, middle).attribution == run_of(there, last).attribution
    assert run_of(middle).attribution == run_of(there).attribution
    assert any("middle" in remark or "both sides" in remark for remark in run_of(middle).remarks)


def test_of_a_log_with_two_migrations_that_is_said(tmp_path: Path) -> None:
    source, destination, took = Downtime([("ram", 100, 100), ("a", 50, 70)]).logs(tmp_path)
    text = source.read_text()
    source.write_text(text + "".join(f"{moved(line, 10**9)}\n" for line in text.splitlines()))
    run = run_of(source, destination)
    assert run.downtime_ms == pytest.approx(took / 1e3, abs=0.2)
    assert "source.log has 2 downtimes, of which the last is explained" in run.remarks


@FEWER
@given(ahead=st.integers(-(10**10), 10**10), which=st.sampled_from(["e1000e-3-qemu-11", "vfio-2"]))
def test_two_hosts_clocks_are_aligned_within_what_is_stated(
    tmp_path_factory: pytest.TempPathFactory, ahead: int, which: str
) -> None:
    source, destination = real(which)
    shifted = tmp_path_factory.mktemp("logs") / "shifted.log"
    shifted.write_text("".join(f"{moved(line, ahead)}\n" for line in lines_of(destination)))
    true = as_it_is(which).runs[0].downtime_ms
    result = explain(source, shifted).result
    (run,), clocks = result.runs, result.settings["clocks"]
    assert run.downtime_ms is not None
    assert true is not None
    assert isinstance(clocks, dict)
    stated = clocks["uncertainty_ms"]
    assert isinstance(stated, float)
    assert abs(run.downtime_ms - true) <= stated + 1e-6
    assert stated < 4
    assert sum(run.attribution.values()) == pytest.approx(run.downtime_ms)


def moved(line: str, by: int) -> str:
    """A line whose clock is so many microseconds ahead."""
    from datetime import UTC, datetime

    seconds, rest = divmod(microseconds(line) + by, 10**6)
    if line.partition(":")[0].find("@") > 0:
        thread, _, said = line.partition("@")
        return f"{thread}@{seconds}.{rest:06d}:{said.partition(':')[2]}"
    stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{rest:06d}Z {line.partition(' ')[2]}"


def test_a_large_log_takes_no_memory_for_what_is_not_of_the_downtime(tmp_path: Path) -> None:
    source, _ = real("checkpoints-alone")
    large = tmp_path / "large.log"
    packet = "9@1700000000.{:06d}:multifd_send_fill channel 1 packet_num {} flags 0x0 next packet size 4096\n"
    other = f"9@1700000000.000001:migration_transferred_bytes qemu_file {'9' * 2000}\n"
    with large.open("w") as file:
        for number in range(10_000):
            file.write(other + packet.format(number, number))
        file.write("\n".join(lines_of(source)) + "\n")
    assert large.stat().st_size > 15 << 20
    tracemalloc.start()
    log = read_log(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20
    assert log.counts.lines > 20_000
    assert len(log.packets) == 4096


def test_packets_have_the_names_that_they_had_before_qemu_10_too(tmp_path: Path) -> None:
    source, destination = real("e1000e-16")
    older = []
    for path, event, before in ((source, "multifd_send_fill", "send"), (destination, "multifd_recv_unfill", "recv")):
        text = "\n".join(lines_of(path)).replace(f"{event} channel", f"multifd_{before} channel")
        (tmp_path / before).write_text(
            re.sub(r"(multifd_\w+ channel \d+ packet_num \d+) ", r"\1 normal pages 3 ", text)
        )
        older.append(tmp_path / before)
    assert explain(*older).result.runs == as_it_is("e1000e-16").runs


def test_of_a_log_with_several_migrations_the_last_counts(tmp_path: Path) -> None:
    source, destination, took = Downtime([("ram", 100, 100), ("a", 50, 70)]).logs(tmp_path)
    failed = "5@1600000000.000001:vmstate_downtime_checkpoint src-downtime-start\n"
    source.write_text(failed + failed.replace("downtime-start", "vm-stopped") + source.read_text())
    assert run_of(source, destination).downtime_ms == pytest.approx(took / 1e3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty: start QEMU with -msg timestamp=on"),
        ("no trace\nat all\n", "no line of QEMU's trace"),
        ("vmstate_downtime_checkpoint src-downtime-start\n", "has no times: start QEMU with -msg timestamp=on"),
        ("1@1700000000.000001:migrate_set_state new state setup\n", 'trace-event vmstate_downtime* on" (QEMU 8.2'),
        ("1@1700000000.000001:vmstate_downtime_checkpoint src-downtime-start\n", "did not come to its end"),
        (
            "1@1700000000.000001:vmstate_downtime_checkpoint dst-precopy-bh-vm-started\n"
            "1@1700000000.000002:vmstate_downtime_checkpoint src-downtime-start\n",
            "did not come to its end",
        ),
        (
            "1@1700000000.000001:vmstate_downtime_checkpoint src-downtime-end\n",
            "its first checkpoint is src-downtime-end",
        ),
    ],
)
def test_what_is_no_log_of_a_downtime_is_refused_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    bad = tmp_path / "bad.log"
    bad.write_text(text)
    with pytest.raises(UsageError) as caught:
        explain(bad)
    assert said in str(caught.value)
    assert str(bad) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_either_log_may_stand_first() -> None:
    source, destination = real("e1000e-16")
    assert explain(destination, source).result == explain(source, destination).result


def test_logs_that_do_not_belong_together_are_refused_in_a_line(tmp_path: Path) -> None:
    source, destination = real("e1000e-16")
    other = real("vfio-2")[1]
    for logs, said in (
        ((source, source), "are both the source's"),
        ((source, other), "are not of one migration"),
        ((tmp_path / "none", destination), "cannot be read"),
        ((tmp_path, destination), "is a directory"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            explain(*logs)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("whose", [0, 1])
def test_one_side_alone_is_explained_and_said_to_be_a_part(name: str, whose: int) -> None:
    result: LabResult = explain(real(name)[whose]).result
    (run,) = result.runs
    both = run_of(*real(name)).downtime_ms
    assert run.downtime_ms is not None
    assert both is not None
    assert sum(run.attribution.values()) == pytest.approx(run.downtime_ms)
    assert whose == 0 or run.downtime_ms <= both
    missing = ("destination", "source")[whose]
    assert any(f"without the {missing}'s log" in remark for remark in run.remarks)
    waited = run.attribution.get(("other", "starved")[whose], 0)
    assert run.analysis is not None
    if waited > 0.6 * run.downtime_ms:
        assert run.analysis.why.startswith("nothing that this log says. For ")
        assert f"waited for the {missing}, whose log says why." in run.analysis.why


def test_made_logs_in_either_form_say_the_same(tmp_path: Path) -> None:
    random.seed(1)
    devices = [
        ("ram", 300, 200),
        *((f"d{at}/nic", random.randrange(1, 900), random.randrange(1, 900)) for at in range(9)),
    ]
    found = []
    for dated in (False, True):
        (directory := tmp_path / str(dated)).mkdir()
        source, destination, took = Downtime(devices, dated=dated).logs(directory)
        run = run_of(source, destination)
        assert run.downtime_ms == pytest.approx(took / 1e3)
        found.append(run.attribution)
    assert found[0] == found[1]


@pytest.mark.parametrize("dated", [False, True], ids=["threads told", "no threads"])
@pytest.mark.parametrize("ends", [1800, 9000], ids=["while a device is loaded", "after the machine runs"])
def test_memory_that_post_copy_loads_is_no_part_of_the_devices_loads(tmp_path: Path, dated: bool, ends: int) -> None:
    """A thread of its own loads it, and ends before the machine runs or long after."""
    devices = [("timer", 50, 20), ("slow", 100, 4000), ("other", 100, 300)]
    source, destination, end = Downtime(devices, dated=dated).logs(tmp_path)
    plain = run_of(source, destination)
    made = Log(dated=dated)
    made.say(510, "loadvm_process_command com=POSTCOPY_LISTEN len=0")
    made.say(ends, "vmstate_downtime_load type=iterable idstr=ram instance_id=0 downtime=900", thread=9)
    text = destination.read_text().replace("dst-precopy-bh-vm-started", "dst-postcopy-bh-vm-started").splitlines()
    destination.write_text("\n".join(sorted([*text, *(line for _, line in made.lines)], key=microseconds)))
    run = run_of(source, destination)
    assert run.downtime_ms == pytest.approx(end / 1e3)
    assert run.attribution == plain.attribution
    assert run.analysis is not None
    assert plain.analysis is not None
    assert run.analysis.why == plain.analysis.why
    assert run.analysis.why.startswith("slow takes")


def test_a_package_of_post_copy_is_there_once_it_has_been_read(tmp_path: Path) -> None:
    """What lies between its sections is no wait for the source, also if the source's log is not there to say so."""
    theirs = Log()
    theirs.say(-3000, "loadvm_process_command com=PACKAGED len=4")
    for number in range(4):
        theirs.say(500 * number, f"qemu_loadvm_state_section_startfull {number}(d{number}) 0 1")
        theirs.say(500 * number, "qemu_loadvm_state_section 4")
        theirs.say(
            500 * number + 100, f"vmstate_downtime_load type=non-iterable idstr=d{number} instance_id=0 downtime=100"
        )
    theirs.say(2000, "vmstate_downtime_checkpoint dst-postcopy-bh-enter")
    theirs.say(2100, "vmstate_downtime_checkpoint dst-postcopy-bh-vm-started")
    run = run_of(theirs.write(tmp_path / "destination.log"))
    assert "starved" not in run.attribution
    assert sum(run.attribution.values()) == pytest.approx(run.downtime_ms)
