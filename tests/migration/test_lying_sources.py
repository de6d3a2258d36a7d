"""What a source says when it cannot be so: no machine starts of which something has not come, or came twice."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migpool.migration.report import SideReport
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.wire.commands import ping, switchover_start
from migpool.wire.multifd import initial_packet
from migpool.wire.ramheader import sync_header
from migpool.wire.returnpath import CREDITS_CAPABILITY, Message, Running, Shut
from tests.support import examples
from tests.support.paper import PAGE, Paper
from tests.support.qemu_source import QemuSource, Stream, packet, pages_of
from tests.support.receiving import Exact, receiving
from tests.support.rig import KIB, contents

CHANNELS, PAGES = 2, 4
MODELS: Final = ("pool", "inline", "per-device+receiver", "pool:1", "poll")
SETTINGS = Settings(
    channels=CHANNELS, chunk=16 * KIB, budget=512 * KIB, peer_limit=0.5, accept_limit=60, connect_limit=60
)
"""Who waits for what does not come ends soon. One that is given up too soon is no success: nothing depends on it."""


@dataclass(frozen=True)
class Said:
    """One thing that a source says.

    Arguments:
        line: on which connection; 0 is the main channel.
        what: its bytes.
        part: what of the machine it brings, which must come once; empty for what may be there or not.
    """

    line: int
    what: bytes
    part: str = ""


def honest(*, credits_: bool) -> tuple[Stream, list[Said]]:
    """A machine of two devices and a plain one, and all that is said of it, in order."""
    paper = Paper(PAGES)
    for page in range(PAGES):
        paper.write(0, page, contents(PAGE, page + 1))
    devices = [Exact(number) for number in range(2)]
    plain = Exact(9, None, name="plain")
    # With credits nothing may come that has not been granted, and what is granted at once is one room a device.
    chunks = {
        device.idstr: [contents(2 * KIB, 10 * at + n) for n in range(0 if credits_ else 3)]
        for at, device in enumerate(devices)
    }
    stream = Stream(chunks, {one.idstr: one.config for one in devices}, paper, {plain.idstr: plain.config})
    capabilities = (CREDITS_CAPABILITY,) if credits_ else ()
    openings = [initial_packet(channel) + sync_header(channel) for channel in range(CHANNELS)]
    said = [Said(0, stream.opening(capabilities), "opening")]
    said += [Said(number, opening, f"channel {number}") for number, opening in enumerate(openings, 1)]
    path, *starts = stream.starts()
    said += [Said(0, path), *(Said(0, start, f"start {number}") for number, start in enumerate(starts))]
    said += [Said(0, stream.flush(last=False, count=0)), Said(0, switchover_start(), "switchover")]
    for channel in range(CHANNELS):
        mine = pages_of(paper, 10 + channel, range(channel, PAGES, CHANNELS))
        said.append(Said(channel + 1, mine + sync_header(20 + channel)))
    for at, (name, each) in enumerate(stream.states.items()):
        for index, chunk in enumerate(each):
            said.append(Said(1 + (at + index) % CHANNELS, packet(name, index, chunk), f"{name} {index}"))
        config = packet(name, len(each), stream.configs[name], config=True)
        said.append(Said(1 + at % CHANNELS, config, f"{name} config"))
    said.append(Said(0, stream.flush(last=True), "end of the memory"))
    said += [Said(0, one) for one in stream.ends()]
    *marks, last = stream.fulls()
    said += [Said(0, one) for one in marks]
    return stream, [*said, Said(0, last, "plain"), Said(0, stream.end(), "end")]


Kind = Literal["left out", "twice", "moved", "cut", "junk", "other index", "ping", "switchover", "sync", "flush"]
LIES = st.tuples(st.sampled_from(get_args(Kind)), st.integers(0, 40), st.integers(0, 40))


def told(said: list[Said], lies: Sequence[tuple[Kind, int, int]]) -> list[Said]:
    """What is said with these lies. What opens the connections is true: else another source is waited for."""
    openings, said = said[: 1 + CHANNELS], said[1 + CHANNELS :]
    for kind, first, second in lies:
        at, to = first % len(said), second % len(said)
        one = said[at]
        match kind:
            case "left out" if len(said) > 1:
                said.pop(at)
            case "twice":
                said.insert(to, one)
            case "moved":
                said.insert(to, said.pop(at))
            case "cut":
                said[at] = replace(one, what=one.what[: len(one.what) * second // 41], part="")
            case "junk":
                said.insert(at, Said(second % (CHANNELS + 1), contents(1 + second, first)))
            case "other index" if one.part.startswith("device"):
                changed = bytearray(one.what)
                changed[280:284] = (second % 5).to_bytes(4, "big")
                said[at] = replace(one, what=bytes(changed), part=one.part if bytes(changed) == one.what else "")
            case "ping":
                said.insert(at, Said(0, ping(second)))
            case "switchover":
                said.insert(at, Said(0, switchover_start(), "switchover"))
            case "sync":
                said.insert(at, Said(1 + second % CHANNELS, sync_header(90 + second), "sync"))
            case "flush":
                said.insert(at, Said(0, Stream({}, {}, Paper(1)).flush(last=bool(second % 2)), "flush"))
    return openings + said


def hear(
    said: Sequence[Said], model: str, *, credits_: bool, limit: float = SETTINGS.peer_limit
) -> tuple[SideReport, list[Exact], list[Message]]:
    """Have a destination hear all this, and then the end of every connection.

    A source that knows credits ends none before it has heard how it went, or it would say that it gives up.
    """
    devices = [Exact(0), Exact(1), Exact(9, None, name="plain")]
    with tempfile.TemporaryDirectory() as folder:
        paper = Paper(PAGES)
        with receiving(Path(folder), [paper, *devices], replace(SETTINGS, peer_limit=limit), model) as (
            address,
            report,
        ):
            with QemuSource(address, CHANNELS) as source:
                source.say([(one.line, one.what) for one in said], ends=not credits_)
                heard = [*source.heard()]
            return report(), devices, heard


@pytest.mark.parametrize("credits_", [False, True], ids=["as a QEMU", "with credits"])
@pytest.mark.parametrize("model", MODELS)
def test_the_truth_is_taken(model: str, credits_: bool) -> None:
    stream, said = honest(credits_=credits_)
    ended, devices, heard = hear(said, model, credits_=credits_, limit=60)
    assert (ended.outcome, ended.error) == (State.COMPLETED, "")
    assert [bytes(one.got) for one in devices[:2]] == [b"".join(chunks) for chunks in stream.states.values()]
    assert [one.error for one in heard if isinstance(one, Shut)] == [0]


def test_a_machine_does_not_start_before_the_switchover_however_the_stream_ends() -> None:
    _, said = honest(credits_=False)
    ended, devices, _ = hear([one for one in said if one.part != "switchover"], "pool", credits_=False, limit=60)
    assert ended.error == "the stream ended without SWITCHOVER_START, and so without device-0"
    assert not any("start" in one.calls for one in devices)


@settings(max_examples=examples(25, 300), deadline=None)
@given(st.lists(LIES, min_size=1, max_size=3), st.booleans(), st.sampled_from(MODELS))
def test_no_script_of_a_source_starts_a_machine_that_is_not_whole(
    lies: list[tuple[Kind, int, int]], credits_: bool, model: str
) -> None:
    stream, said = honest(credits_=credits_)
    parts = Counter(one.part for one in said if one.part)
    said = told(said, lies)
    ended, devices, heard = hear(said, model, credits_=credits_)
    started = any("start" in one.calls for one in devices)
    assert started == (ended.outcome is State.COMPLETED) == bool(ended.running)
    # A source that hears that the machine runs there, or that all is well, hears the truth.
    assert started or not any(isinstance(one, Running) or (isinstance(one, Shut) and not one.error) for one in heard)
    if not started:
        assert ended.outcome is State.FAILED
        assert ended.error
        return
    for device in devices[:2]:
        assert bytes(device.got) == b"".join(stream.states[device.idstr])
        assert device.got_config == stream.configs[device.idstr]
    assert devices[2].got_config == stream.plain["plain-9"]
    missing = parts - Counter(one.part for one in said if one.part)
    assert not set(missing) - {"end"}, missing
