"""A source as a QEMU is, under every threading model: what its order of things means, nobody waits for for ever."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import ConfigChannel, Device
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.scenario.model_syntax import all_models
from migpool.wire.commands import switchover_start
from migpool.wire.ramheader import sync_header
from migpool.wire.returnpath import Shut, SwitchoverAck
from migpool.wire.sections import footer
from tests.support import LONG
from tests.support.paper import PAGE, Paper
from tests.support.qemu_source import LIMIT, RAM, QemuSource, Stream, pages_of
from tests.support.receiving import Exact, receiving
from tests.support.rig import KIB, contents

CHANNELS = 3
SETTINGS = Settings(channels=CHANNELS, chunk=16 * KIB, budget=1024 * KIB, peer_limit=LIMIT, credits=False)
PAGES = 24
MODELS = [*all_models(), "pool:1", "pool:2", "elastic:1", "blocking-aware:1", "poll:1", "pool:1:queue"]
"""Also with fewer threads than there are devices: then the thread that reads the main channel waits for one."""


def stream_of(devices: int, *, plain: int = 1, chunks: int = 4, machine: str = "machine") -> Stream:
    """A machine in which every chunk of every device, and every page, is another one."""
    paper = Paper(PAGES)
    for page in range(PAGES):
        paper.write(0, page, contents(PAGE, page + 1))
    made = [Exact(number) for number in range(devices)]
    return Stream(
        {one.idstr: [contents(3 * KIB, 100 * at + n) for n in range(chunks)] for at, one in enumerate(made)},
        {one.idstr: one.config for one in made},
        paper,
        {one.idstr: one.config for one in (Exact(number, None, name="plain") for number in range(plain))},
        machine,
    )


def machine_of(stream: Stream) -> tuple[list[Exact], Paper, list[Device]]:
    """The destination's: its iterable devices, its memory, and all of it."""
    iterable = [Exact(number) for number in range(len(stream.states))]
    plain = [Exact(number, None, name="plain") for number in range(len(stream.plain))]
    paper = Paper(PAGES)
    return iterable, paper, [paper, *iterable, *plain]


def check(stream: Stream, devices: list[Exact], paper: Paper) -> None:
    """Every byte is where it belongs, and came in order."""
    for device in devices:
        state = b"".join(stream.states[device.idstr])
        assert hashlib.sha256(device.got).digest() == hashlib.sha256(state).digest()
        assert device.got_config == stream.configs[device.idstr]
    assert paper.contents() == stream.paper.contents()


@pytest.mark.parametrize("model", MODELS)
def test_chunks_stand_before_between_and_behind_the_syncs(tmp_path: Path, model: str) -> None:
    """Whatever waits for a chunk: it comes, although the FLUSH is read only when that wait is over."""
    for seed in range(40 if LONG else 4):
        stream = stream_of(3)
        devices, paper, machine = machine_of(stream)
        (folder := tmp_path / str(seed)).mkdir()
        with receiving(folder, machine, SETTINGS, model) as (address, report), QemuSource(address, CHANNELS) as source:
            source.greet(stream.begin())
            source.switch_over(stream.flush(last=True, count=2) + stream.rest(), stream.switchover(seed, CHANNELS))
            assert [one.error for one in source.heard() if isinstance(one, Shut)] == [0]
        ended = report()
        assert (ended.outcome, ended.error) == (State.COMPLETED, ""), f"seed {seed}"
        check(stream, devices, paper)


# ---------------------------------------------------------------------- machine types up to 8.0


@pytest.mark.parametrize("riding", [False, True], ids=["SYNCs alone", "SYNCs with pages"])
@pytest.mark.parametrize("model", [*all_models(), "pool:1"])
def test_without_flushes_the_end_of_each_section_is_one(tmp_path: Path, model: str, riding: bool) -> None:
    """No page is behind, and the footer is not waited for: a QEMU keeps it, and sends more pages than sockets hold."""
    stream = stream_of(2, machine="pc-q35-8.0")
    devices, paper, machine = machine_of(stream)
    before = Paper(PAGES)
    footed = stream.flush(last=False)
    begin = stream.begin() + footed[: -len(footer(RAM))]
    with (
        receiving(tmp_path, machine, SETTINGS, model, stream.machine) as (address, report),
        QemuSource(address, CHANNELS) as source,
    ):
        source.greet(begin)
        for number, channel in enumerate(source.channels, 10):
            channel.sendall(pages_of(before, number, [number], sync=riding) + (b"" if riding else sync_header(number)))
        for number, channel in enumerate(source.channels, 20):
            channel.sendall(pages_of(before, number, range(PAGES)) * 5 + sync_header(number))
        source.main.sendall(footed[-len(footer(RAM)) :] + footed + switchover_start())
        source.main.sendall(stream.flush(last=True, count=2) + stream.rest())
        for channel, said in zip(source.channels, stream.switchover(1, CHANNELS), strict=True):
            channel.sendall(said)
        assert [one.error for one in source.heard() if isinstance(one, Shut)] == [0]
    ended = report()
    assert (ended.outcome, ended.error) == (State.COMPLETED, "")
    check(stream, devices, paper)


# ---------------------------------------------------------------------- the capability switchover-ack


def acknowledged(source: QemuSource, *says: bytes) -> int:
    """How often a switchover has been acknowledged once the destination has taken this."""
    source.main.sendall(b"".join(says))
    return sum(isinstance(one, SwitchoverAck) for one in source.asked())


OLD, NEW, UNNAMED = "pc-q35-11.0", "pc-q35-11.1", "microvm"


@pytest.mark.parametrize(("name", "wanted"), [(OLD, 1), (NEW, 0), (UNNAMED, 0)])
def test_without_a_device_that_could_want_it_an_old_source_is_acknowledged_at_once(
    tmp_path: Path, name: str, wanted: int
) -> None:
    stream = stream_of(0, machine=name)
    _, _, machine = machine_of(stream)
    with (
        receiving(tmp_path, machine, SETTINGS, name=name) as (address, report),
        QemuSource(address, CHANNELS) as source,
    ):
        source.greet(stream.begin())
        assert acknowledged(source) == wanted
        source.switch_over(stream.flush(last=True, count=2) + stream.rest(), stream.switchover(1, CHANNELS))
        source.heard()
    assert report().error == ""
    assert acknowledged_in_all(source) == wanted


@pytest.mark.parametrize("name", [OLD, NEW, UNNAMED])
@pytest.mark.parametrize("saying", [(), (1,), (2, 0), (1, 2, 0)], ids=str)
def test_it_comes_when_all_who_want_it_have_it_and_not_before(
    tmp_path: Path, name: str, saying: tuple[int, ...]
) -> None:
    """A device that cannot be pre-copied at the source has no section in an iteration, and is not waited for.

    Arguments:
        saying: the devices that give initial data, in the order in which it ends.
    """
    stream = stream_of(3, machine=name)
    devices, paper, machine = machine_of(stream)
    round_ = stream.flush(last=False, count=0)
    with (
        receiving(tmp_path, machine, SETTINGS, name=name) as (address, report),
        QemuSource(address, CHANNELS) as source,
    ):
        source.greet(stream.begin())
        assert acknowledged(source, round_, *(stream.gives(number, b"early ") for number in saying)) == 0
        for at, number in enumerate(saying):
            assert acknowledged(source, round_) == (at if name == NEW else 0)
            acknowledged(source, stream.initial(number, b"data "))
        wanted = {OLD: 1, NEW: len(saying), UNNAMED: len(saying) == 3}[name]
        assert acknowledged(source, round_, round_) == wanted
        source.switch_over(stream.flush(last=True, count=2) + stream.rest(), stream.switchover(1, CHANNELS))
        source.heard()
    assert report().error == ""
    assert acknowledged_in_all(source) == wanted
    for number in saying:
        device = devices[number]
        assert device.got.startswith(b"early data ")
        del device.got[: len(b"early data ")]
    check(stream, devices, paper)


def acknowledged_in_all(source: QemuSource) -> int:
    return sum(isinstance(one, SwitchoverAck) for one in source.heard())


# ---------------------------------------------------------------------- x-migration-multifd-transfer=off


@pytest.mark.parametrize("model", [*all_models(), "pool:1"])
def test_state_on_the_main_channel_beside_pages_on_the_others(tmp_path: Path, model: str) -> None:
    stream = stream_of(3)
    devices, paper, machine = machine_of(stream)
    for device in devices:
        device.config_channel = "main-channel"
    with receiving(tmp_path, machine, SETTINGS, model) as (address, report), QemuSource(address, CHANNELS) as source:
        source.greet(stream.begin())
        source.main.sendall(stream.gives(1, b"early "))
        only_pages = replace(stream, states={}).switchover(1, CHANNELS)
        source.switch_over(stream.flush(last=True, count=2) + stream.rest(transfer=False), only_pages)
        source.heard()
    ended = report()
    assert (ended.outcome, ended.error) == (State.COMPLETED, "")
    assert devices[1].got.startswith(b"early ")
    del devices[1].got[: len(b"early ")]
    check(stream, devices, paper)


@pytest.mark.parametrize(("here", "there"), [("main-channel", "multifd"), ("multifd", "main-channel")])
def test_state_on_the_other_way_is_refused_and_told(tmp_path: Path, here: ConfigChannel, there: ConfigChannel) -> None:
    stream = stream_of(1)
    devices, _, machine = machine_of(stream)
    devices[0].config_channel = here
    sent = stream if there == "multifd" else replace(stream, states={})
    with receiving(tmp_path, machine, SETTINGS) as (address, report), QemuSource(address, CHANNELS) as source:
        source.greet(stream.begin())
        rest = stream.rest(transfer=there == "multifd")
        source.switch_over(stream.flush(last=True, count=2) + rest, sent.switchover(1, CHANNELS))
        assert all(one.error for one in source.heard() if isinstance(one, Shut))
    ended = report()
    assert ended.outcome is State.FAILED
    # Either connection may be read first: that with a chunk which nobody expects, or that which ends without a section.
    unexpected = ("whose state crosses here (none), found 'device-0'", "the stream ended without device-0")
    told = unexpected if there == "multifd" else ('vmsd = "main-channel"',)
    assert any(one in ended.error for one in told), ended.error
    assert not any("start" in device.calls for device in devices)
