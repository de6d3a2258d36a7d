"""Experiments of real QEMUs' machines: their file, what is measured of a run, and what is said without a QEMU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from migpool.errors import ScenarioError
from migpool.experiments.form import load_experiment, parse_experiment
from migpool.experiments.page import page
from migpool.experiments.qemu_pair import DevicesTable, MachineTable, loads_ms
from migpool.experiments.repetitions import make_rounds
from migpool.experiments.runner import found_in
from migpool.lab.qemu.explain import explain
from migpool.lab.run.result import RunResult
from tests.support.commandline import here
from tests.support.made_experiments import FILE, never, silent
from tests.support.qemu_logs import Downtime

QEMU = """
id = "T3"
title = "Loads"
claim = "loads grow"
by = "a test"
method = "Machines are migrated."

[qemu]
arguments = ["-machine", "q35"]

[[variants]]
name = "few"
qemu = {kind = "card", each = "-device card,id=c{n}", count = 2, first = "-device bus"}

[[variants]]
name = "many"
qemu = {kind = "card", each = "-device card,id=c{n}", count = 6, tracepoints = ["flatview_new"]}

[[comparisons]]
name = "many against few"
of = "many"
to = "few"
measure = "load"
least = 1.2

[effort]
seconds = 60
quick = 1
"""


class Machines:
    """Runs whose cards load slower the more there are, as made logs say."""

    def __init__(self, directory: Path, growth: int) -> None:
        self._directory = directory
        self._growth = growth
        self.asked: list[list[str]] = []

    def __call__(self, machine: MachineTable, devices: DevicesTable) -> RunResult:
        self.asked.append([*machine.arguments, *devices.arguments])
        cards = [(f"0000:02:{at:02x}.0/card", 20, 500 + self._growth * at) for at in range(devices.count)]
        views = {name: (3, 40) for name, _, _ in cards if devices.tracepoints}
        made = Downtime([("ram", 10, 10), *cards, ("0000:00:1f.0/other", 10, 9000)], views=views)
        source, destination, _ = made.logs(self._directory)
        (run,) = explain(source, destination).result.runs
        return run


@pytest.mark.parametrize(("growth", "verdict"), [(200, "supported"), (0, "refuted")])
def test_the_loads_of_one_kind_are_compared_and_told_in_their_order(tmp_path: Path, growth: int, verdict: str) -> None:
    experiment = parse_experiment(QEMU, "made up")
    machines = Machines(tmp_path, growth)
    measured = make_rounds(experiment, 1, stop=never, say=silent, make_qemu=machines)
    few = ["-machine", "q35", "-device", "bus", "-device", "card,id=c0", "-device", "card,id=c1"]
    assert few in machines.asked
    finding = found_in(experiment, measured, quick=True, load=0.0)
    assert finding.verdict == verdict
    (ratio,) = finding.comparisons
    assert ratio.median == pytest.approx((500 + 2.5 * growth) / (500 + 0.5 * growth))
    _, many = finding.variants
    assert many.loads_ms == pytest.approx([(500 + growth * at) / 1e3 for at in range(6)])
    told = page(finding, "x.svg")
    assert f"| many | {(3000 + 15 * growth) / 1e3:.2f} ms | 500 {500 + growth} " in told
    assert "* many: the destination built 18 flat views of memory while devices were loaded (18 for 6 card)" in told


def test_a_run_without_devices_of_the_kind_has_no_ratio(tmp_path: Path) -> None:
    experiment = parse_experiment(
        QEMU.replace('kind = "card", each = "-device card,id=c{n}", count = 2', 'kind = "none", each = ""'), "made up"
    )
    measured = make_rounds(experiment, 1, stop=never, say=silent, make_qemu=Machines(tmp_path, 0))
    assert loads_ms(measured.rounds[0]["few"], "none") == []
    assert found_in(experiment, measured, quick=True, load=0.0).comparisons[0].outcome == "open"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (QEMU.replace("[qemu]\narguments", "[scenario]\nname"), "give it a model and no qemu|scenario"),
        (QEMU.replace("[qemu]", "[scenario]\nname = 't3'\n\n[qemu]"), "there must be a scenario or qemu"),
        (QEMU.replace("arguments =", "program ="), "qemu.*program"),
        (QEMU.replace('name = "few"\nqemu', 'name = "few"\nmodel = "inline"\nqemu'), "variant 'few': give it a model"),
        (QEMU.replace("count = 6", "count = 0"), "count"),
        (FILE.replace("least = 1.2", 'least = 1.2\nmeasure = "load"'), "only variants of qemu have the measure load"),
        (FILE.replace('model = "inline"\n', ""), "variant 'slow': give it a model"),
    ],
)
def test_what_is_wrong_in_such_a_file_is_named(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_experiment(text, "made up")
    assert re.search(message, str(caught.value))


def test_without_a_qemu_it_says_so_and_all_leaves_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU", str(tmp_path / "none"))
    (tmp_path / "mine.toml").write_text(QEMU)
    ended = here("lab", "run", str(tmp_path / "mine.toml"))
    assert ended.code == 2
    assert ended.err.startswith(
        "migpool: there is no qemu-system-x86_64 here: install QEMU 8.2 or later, or name it in"
    )
    monkeypatch.setattr("migpool.experiments.form.names", lambda: ["C13"])
    ended = here("lab", "run", "all")
    assert (ended.code, ended.err) == (0, "migpool: C13 is left out: it needs a QEMU, and there is none here\n")


def test_all_leaves_out_what_needs_a_link_where_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migpool.experiments.runner.refusal", lambda: "namespaces are refused")
    monkeypatch.setattr("migpool.experiments.form.names", lambda: ["C14", "C5-links"])
    ended = here("lab", "run", "all")
    assert (ended.code, ended.out) == (0, "")
    told = [f"migpool: {name} is left out: namespaces are refused" for name in ("C14", "C5-links")]
    assert ended.err.splitlines() == told


def test_a_qemu_that_does_not_start_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "qemu"
    broken.write_text("#!/bin/sh\necho 'qemu: -device card: no such thing' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("QEMU", str(broken))
    (tmp_path / "mine.toml").write_text(QEMU)
    ended = here("lab", "run", str(tmp_path / "mine.toml"))
    assert ended.code == 2
    assert re.fullmatch(
        r"migpool: the (source|destination)'s QEMU does not start: qemu: -device card: no such thing\n", ended.err
    )


def test_the_claim_has_kinds_with_memory_of_their_own_and_one_without() -> None:
    experiment = load_experiment("C13")
    assert {"e1000e", "virtio-net", "usb-ccid"} <= set(experiment.kinds.values())
    assert experiment.runs
