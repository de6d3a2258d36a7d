"""What a destination says when it cannot be so: no machine is called moved or verified for it, and none is lost."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migpool.core.machine import Machine
from migpool.migration.report import SideReport, boot_id
from migpool.migration.settings import Settings
from migpool.migration.source import Source
from migpool.migration.states import State
from migpool.schedulers.per_device import PerDeviceScheduler
from migpool.transport.address import Address
from migpool.wire.returnpath import (
    Digest,
    Failed,
    GrantMessage,
    Message,
    Pong,
    Running,
    Shut,
    SwitchoverAck,
    Welcome,
    encode,
)
from tests.support import examples
from tests.support.lying_destination import PHASES, LyingDestination, Phase
from tests.support.rig import KIB, LIMIT, Pair, Scripted, contents, migrate
from tests.support.tampering import Line

Script = Mapping[Phase, Sequence[bytes]]
BOOT = boot_id()
HERE = bytes(16)
STATES = [contents(20 * KIB, 1), contents(30 * KIB, 2)]
ROOM = 1 << 31


def machine() -> list[Scripted]:
    return [*(Scripted(number, state) for number, state in enumerate(STATES)), Scripted(9, None, name="plain")]


def lied_to(script: Script, *, held: bool = False, patience: float = LIMIT) -> tuple[SideReport, list[Scripted]]:
    """Send a machine to a destination that loads nothing and says this.

    Arguments:
        held: before all is sent.
        patience: after so many seconds without a byte the destination goes; see there.
    """
    source = machine()
    if held:
        source[0].block_in("save_state", threading.Event())
    how = Settings(channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=LIMIT)
    with tempfile.TemporaryDirectory() as folder:
        there = LyingDestination(Path(folder) / "s", machine(), how.channels, script, patience)
        report = Source(Machine("machine", source), how, PerDeviceScheduler()).run(Address(path=f"{folder}/s"))
        there.close()
    return report, source


def said(*messages: Message) -> list[bytes]:
    return [encode(message) for message in messages]


WELCOMED = said(Pong(1), Welcome(16 * KIB, 2), GrantMessage(0, ROOM), GrantMessage(1, ROOM), SwitchoverAck())
RUNS = encode(Running(HERE, 1))


def digests(devices: Sequence[Scripted]) -> list[bytes]:
    return said(*(Digest(at, device.fingerprint() or bytes(32)) for at, device in enumerate(devices)))


def test_a_destination_that_says_all_that_it_should_is_believed() -> None:
    report, source = lied_to({"greeted": WELCOMED, "end": [RUNS, *digests(machine()), encode(Shut(0))]})
    assert (report.outcome, report.error, report.verified) == (State.COMPLETED, "", True)
    assert not any(device.running for device in source[:2])


@pytest.mark.parametrize("phase", PHASES[:-1])
@pytest.mark.parametrize("early", [Running(BOOT, 1), Shut(0), Digest(0, bytes(32))], ids=lambda one: type(one).__name__)
def test_what_comes_too_early_is_a_protocol_error_and_the_machine_stays(early: Message, phase: Phase) -> None:
    script: dict[Phase, list[bytes]] = {"greeted": WELCOMED, "end": [RUNS, encode(Shut(0))]}
    script[phase] = [*script.get(phase, []), encode(early)]
    report, source = lied_to(script, held=True)
    assert report.outcome is State.FAILED
    assert f"return path: {type(early).__name__.upper()} at byte" in report.error
    assert all(device.running for device in source)
    assert report.running == 0


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ([RUNS, encode(Shut(0))], "it gives no fingerprint to compare with the one here: device-0, device-1, plain-9"),
        ([RUNS, *said(*(Digest(at, bytes(32)) for at in range(3))), encode(Shut(0))], "it gives no fingerprint"),
        ([RUNS, *said(*(Digest(at, bytes(31) + b"1") for at in range(3))), encode(Shut(0))], "is not what was sent"),
        ([RUNS, RUNS], "one RUNNING, found another"),
        ([RUNS, *said(Digest(3, bytes(32)))], "the place of one of 3 devices, each once, found 3"),
        ([RUNS, *said(Digest(1, bytes(32)), Digest(1, bytes(32)))], "each once, found 1"),
        ([RUNS, encode(Shut(0)), encode(Shut(0))], "it gives no fingerprint"),
        ([RUNS, *said(Failed("no"), Shut(1))], "the machine runs at the destination, but: no"),
        ([RUNS], "the destination closed the connection"),
    ],
)
def test_what_comes_after_the_start_must_fit_too_and_the_machine_is_not_taken_back(
    end: list[bytes], words: str
) -> None:
    report, source = lied_to({"greeted": WELCOMED, "end": end})
    assert report.outcome is State.UNCONFIRMED
    assert words in report.error
    assert not any(device.running for device in source[:2])
    assert report.running >= report.stopped


@pytest.mark.parametrize("end", [said(Shut(0)), said(Digest(0, bytes(32))), said(Welcome(1, 1)), [b"\xff" * 8]])
def test_nonsense_once_everything_is_sent_leaves_the_machine_stopped_since_it_may_run_there(end: list[bytes]) -> None:
    report, source = lied_to({"greeted": WELCOMED, "end": end})
    assert report.outcome is State.UNCONFIRMED
    assert "whether the machine runs there nobody can say: it stays stopped here" in report.error
    assert not any(device.running for device in source[:2])


def test_a_destination_that_gives_up_once_everything_is_sent_leaves_the_machine_here() -> None:
    report, source = lied_to({"greeted": WELCOMED, "end": said(Failed("no room"), Shut(1))})
    assert (report.outcome, report.error) == (State.FAILED, "the destination failed: no room")
    assert all(device.running for device in source)


# ---------------------------------------------------------------------- any script

CLOCKS = st.one_of(
    st.integers(0, (1 << 64) - 1), st.just(0), st.integers(-5, 5).map(lambda s: time.monotonic_ns() + s * 10**9)
)
MESSAGES = st.one_of(
    st.builds(Running, st.sampled_from([BOOT, HERE]), CLOCKS),
    st.builds(Digest, st.integers(0, 4), st.sampled_from([bytes(32), b"1" * 32, hashlib.sha256(b"").digest()])),
    st.builds(Shut, st.integers(0, 2)),
    st.builds(Failed, st.just("no")),
    st.builds(Pong, st.integers(0, 2)),
    st.builds(Welcome, st.sampled_from([0, 1, 4096, 1 << 31]), st.integers(0, 3)),
    st.builds(GrantMessage, st.integers(0, 3), st.sampled_from([0, 1, 5, ROOM])),
    st.just(SwitchoverAck()),
).map(encode) | st.binary(min_size=1, max_size=8)
HONEST: Mapping[Phase, Sequence[bytes]] = {"greeted": WELCOMED, "end": [RUNS, encode(Shut(0))]}


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """What a destination would say, with some of it left out, and other things said besides."""
    script: dict[Phase, list[bytes]] = {phase: list(HONEST.get(phase, ())) for phase in PHASES}
    for _ in range(draw(st.integers(0, 2))):
        phase = draw(st.sampled_from(PHASES))
        if script[phase]:
            del script[phase][draw(st.integers(0, len(script[phase]) - 1))]
    for _ in range(draw(st.integers(0, 4))):
        phase = draw(st.sampled_from([*PHASES, "end", "end"]))
        script[phase].insert(draw(st.integers(0, len(script[phase]))), draw(MESSAGES))
    return script


@settings(max_examples=examples(25, 400), deadline=None)
@given(scripts())
def test_no_script_of_a_destination_that_loads_nothing_is_a_success(script: Script) -> None:
    report, source = lied_to(script, patience=0.1)
    assert not report.succeeded
    assert report.verified is False
    # That of a device without state everybody knows: it is the digest of nothing.
    assert not any(device.verified for device in report.devices if device.iterable)
    assert report.outcome in (State.FAILED, State.UNCONFIRMED)
    assert report.error
    # It runs here, or it may run there: nothing between.
    runs = [device.running for device in source if device.iterable]
    assert runs == [report.outcome is State.FAILED] * 2
    assert not report.running or report.running >= report.stopped > 0


# ---------------------------------------------------------------------- what comes is not what was sent


class Whole(Scripted):
    """A device whose fingerprint is of all that it has."""

    def fingerprint(self) -> bytes | None:
        here = self.got_config is None
        state, config = (self.state, self.config) if here else (self.got, self.got_config or b"")
        return hashlib.sha256(bytes(state) + config).digest()


Kind = Literal["left out", "changed", "under another index", "main changed", "main cut"]


@dataclass(frozen=True)
class Lie:
    """What happens to the bytes on their way: to a device's packet, or to the main channel from a byte on."""

    kind: Kind
    device: int
    index: int
    at: int


LIES = st.builds(
    Lie,
    st.sampled_from(get_args(Kind)),
    st.integers(0, 1),
    st.integers(0, 3),
    st.integers(0, 2000),
)


def told(lies: Sequence[Lie]) -> tuple[SideReport, SideReport, list[Whole], list[Whole]]:
    """Migrate through a line that lies."""
    seen = 0

    def packets(idstr: str, index: int, payload: bytes) -> bytes | None:
        for lie in lies:
            if (idstr, index) == (f"device-{lie.device}", lie.index):
                if lie.kind == "left out":
                    return None
                if lie.kind == "changed" and payload:
                    at = lie.at % len(payload)
                    payload = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        return payload

    def indices(idstr: str, index: int) -> int:
        other = [lie.at % 5 for lie in lies if lie.kind == "under another index" and lie.index == index]
        return other[0] if other and idstr == "device-0" else index

    def main(data: bytes) -> bytes:
        nonlocal seen
        begin, seen = seen, seen + len(data)
        for lie in lies:
            at = lie.at - begin
            if lie.kind == "main changed" and 0 <= at < len(data):
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            elif lie.kind == "main cut":
                data = data[: max(0, at)]
        return data

    source = [*(Whole(number, state) for number, state in enumerate(STATES)), Whole(9, None, name="plain")]
    destination = [Whole(0), Whole(1), Whole(9, None, name="plain")]
    how = Settings(channels=2, chunk=16 * KIB, budget=256 * KIB, peer_limit=0.4, accept_limit=2)
    with tempfile.TemporaryDirectory() as folder:
        line = Line(Path(folder) / "line", packets, main, indices)
        try:
            return *Pair(source, destination, settings=how, through=line).run(Path(folder)), source, destination
        finally:
            line.close()


@settings(max_examples=examples(12, 100), deadline=None)
@given(st.lists(LIES, max_size=2))
def test_whatever_is_lost_or_changed_on_the_way_no_other_state_is_called_verified(lies: list[Lie]) -> None:
    sent, got, source, destination = told(lies)
    if sent.succeeded:
        for ours, theirs in zip(source, destination, strict=True):
            assert (bytes(theirs.got), theirs.got_config) == (bytes(ours.state), ours.config)
    if got.outcome is State.FAILED:
        assert "start" not in {call for device in destination for call in device.calls}
    # Never do two run, and if none does, the source says so.
    assert sent.outcome is not State.FAILED or not got.running
    assert [device.running for device in source[:2]] == [sent.outcome is State.FAILED] * 2


# ---------------------------------------------------------------------- nothing to compare


class Dark(Scripted):
    """A device of which nobody can say what state it has."""

    comparable = False

    def fingerprint(self) -> bytes | None:
        return None


def test_what_was_not_compared_is_not_called_verified(tmp_path: Path) -> None:
    sent, got = migrate(tmp_path, [Scripted(0, STATES[0]), Dark(1, STATES[1])], [Scripted(0), Dark(1)])
    assert (sent.error, got.error) == ("", "")
    assert [device.verified for device in sent.devices] == [True, None]
    assert (sent.succeeded, sent.verified) == (True, None)
    assert (got.succeeded, got.verified) == (True, None)


def test_a_device_without_state_need_not_be_compared(tmp_path: Path) -> None:
    empty = [Dark(1, None), Dark(1, None)]
    for device in empty:
        device.config = b""
    sent, _ = migrate(tmp_path, [Scripted(0, STATES[0]), empty[0]], [Scripted(0), empty[1]])
    assert sent.verified is True
