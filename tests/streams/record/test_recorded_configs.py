"""Recordings of what is migpool's own on the multifd channels: configs, parts with tags, live rounds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from migpool.device import Device, DeviceContext, Part, Pending, Side, TaggedDevice
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.streams.record.explain import explain
from migpool.streams.record.explanation import DeviceUse
from migpool.streams.record.index import load
from migpool.streams.record.over_multifd import configs
from migpool.transport.address import Address
from migpool.wire.devicestate import DeviceStateHeader
from migpool_plugins.vmsd import CapturedDevice
from migpool_plugins.vmsd import devices as captured
from tests.support.commandline import here
from tests.support.made_recordings import Made, Role, begin, end, first, recording
from tests.support.recording_rig import Between, place
from tests.support.rig import KIB, Pair, Scripted, contents

SETTINGS = Settings(channels=2, chunk=4 * KIB, budget=256 * KIB, peer_limit=5, vmsd="multifd")
TAGS = (7, 3, 900, 12)


class Parted(TaggedDevice):
    idstr = "parted"
    engines = 2

    def __init__(self, tags: Sequence[int] = ()) -> None:
        self.left = list(tags)

    def save_part(self, buffer: memoryview) -> Part | None:
        try:
            tag = self.left.pop()
        except IndexError:
            return None
        buffer[:4] = tag.to_bytes(4, "big")
        return Part(tag, 4)

    def load_part(self, tag: int, data: memoryview) -> None:
        assert int.from_bytes(data, "big") == tag

    def save_config(self) -> bytes:
        return b"config"

    def load_config(self, data: bytes) -> None:
        assert data == b"config"


class InRounds(Scripted):
    """A device that has a chunk to save in each of some rounds."""

    def __init__(self, number: int, rounds: int) -> None:
        super().__init__(number, contents(KIB, number))
        self.rounds = rounds
        self.given = False
        self.sent = 0

    def fingerprint(self) -> bytes:
        return hashlib.sha256(bytes(self.sent) + bytes(self.state)).digest()

    def pending(self) -> Pending:
        if self.given:
            self.given, self.rounds = False, self.rounds - 1
        return Pending(100 if self.rounds > 0 else 0, len(self.state) - self.at)

    def iterate(self, buffer: memoryview) -> int:
        if self.given or self.rounds <= 0:
            return 0
        self.given = True
        self.sent += 100
        buffer[:100] = bytes(100)
        return 100


def of_a_q35(side: Side) -> list[Device]:
    include = ["hpet", "PCIHost", "*/e1000e", "i8259"]
    return list(captured(DeviceContext(side, {"machine": "q35-rich", "include": include})))


def recorded(
    folder: Path, source: Sequence[Device], destination: Sequence[Device], settings: Settings = SETTINGS
) -> Path:
    between: list[Between] = []

    def through(address: Address) -> Address:
        between.append(Between(place("unix", folder, "near"), address, folder / "recording"))
        return between[0].address

    sent, got = Pair(source, destination, settings, through=through).run(folder)
    assert (sent.error, got.error, sent.outcome) == ("", "", State.COMPLETED)
    between[0].index()
    return folder / "recording"


def found(directory: Path) -> dict[str, DeviceUse]:
    return {f"{one.idstr}#{one.instance_id}": one for one in explain(directory).devices}


def test_a_config_is_told_with_its_version_and_length(tmp_path: Path) -> None:
    source = of_a_q35("source")
    directory = recorded(tmp_path, [*source, Scripted(0, contents(9 * KIB))], [*of_a_q35("destination"), Scripted(0)])
    uses = found(directory)
    assert (uses["hpet#0"].kind, uses["hpet#0"].version, uses["hpet#0"].length) == ("config", 2, 151)
    card = uses["0000:00:01.0/e1000e#0"]
    assert (card.kind, card.length, card.packets) == ("config", 136069, 34)
    assert uses["device-0#0"].kind == "state"
    assert "PCIHost#0" not in uses
    printed = here("inspect", str(directory)).out
    assert "config, v2, 151 B" in printed
    assert "capability x-migpool-multifd-vmsd: configs of devices that are not iterable cross over" in printed


def test_the_stream_describes_them_so_that_their_fields_are_shown(tmp_path: Path) -> None:
    source = of_a_q35("source")
    directory = recorded(tmp_path, source, of_a_q35("destination"))
    ended = here("inspect", str(directory), "--device", "*", "--json")
    assert (ended.code, ended.err) == (0, "")
    devices = json.loads(ended.out)["devices"]
    assert {(one["idstr"], one["instance_id"]) for one in devices} == {(one.idstr, one.instance_id) for one in source}
    assert all(one["exact"] for one in devices)
    for one in source:
        assert isinstance(one, CapturedDevice)
        shown = next(each for each in devices if (each["idstr"], each["instance_id"]) == (one.idstr, one.instance_id))
        assert shown["fields"] == json.loads(json.dumps(one.show()))
    printed = here("inspect", str(directory), "--device", "hpet").out
    assert printed.startswith("hpet: over the multifd channels, instance 0, version 2, 151 bytes in 1 packet")
    main = here("inspect", str(directory / "000-source.bytes")).out
    assert "1 device and 4 over the multifd channels" in main
    assert "x-migpool-multifd-vmsd  configs of devices" in main


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    directory = recorded(tmp_path, of_a_q35("source"), of_a_q35("destination"))
    ended = here("inspect", str(directory), "--device", "toaster")
    assert ended.code == 2
    assert "no device matches toaster" in ended.err


def test_parts_with_tags_and_live_rounds_are_told(tmp_path: Path) -> None:
    settings = replace(SETTINGS, live="multifd", downtime_limit=1e-9)
    directory = recorded(tmp_path, [Parted(TAGS), InRounds(0, 3)], [Parted(), Scripted(0)], settings)
    uses = found(directory)
    parts, live = uses["parted#0"], uses["device-0#0"]
    assert (parts.kind, parts.highest, parts.count, parts.live_rounds) == ("parts", max(TAGS), len(TAGS), 0)
    assert parts.what == "parts, tags up to 900"
    assert live.kind == "state"
    assert live.live_rounds >= 1
    assert live.what == f"state in order; {live.live_rounds} live rounds"
    explanation = explain(directory)
    assert "round by round" in explanation.capabilities["x-migpool-multifd-live"]
    main = here("inspect", str(directory / "000-source.bytes"))
    assert (main.code, main.err) == (0, "")


def packet(content: bytes, index: int, last: bool) -> bytes:
    header = DeviceStateHeader("plain")
    header.pack(index, len(content), config=last)
    return bytes(header.buffer) + content


@pytest.mark.parametrize(
    ("packets", "wanted"),
    [
        ([(b"\0\0\0", 0, False), (b"\3ab", 1, False), (b"c", 2, True)], (3, b"abc")),
        ([(b"c", 2, True), (b"\0\0\0\3ab", 0, False), (b"", 1, False)], (3, b"abc")),
        ([(b"\0\0\0\1", 0, True)], (1, b"")),
        ([(b"\0\0\0", 0, True)], None),
        ([(b"\0\0\0\1ab", 0, False)], None),
        ([(b"\0\0\0\1ab", 0, False), (b"c", 2, True)], None),
    ],
)
def test_a_config_is_put_together_from_any_parts(
    tmp_path: Path, packets: list[tuple[bytes, int, bool]], wanted: tuple[int, bytes] | None
) -> None:
    main = Made(Role.MAIN, None, [(0, begin("made", answers=True)), (9, end())], [])
    channel = Made(Role.MULTIFD, 0, [(1, first(0)), (2, b"".join(packet(*one) for one in packets))])
    directory = recording(tmp_path / "made", [main, channel])
    kept = configs(directory, load(directory), frozenset(), 4096, lambda *_: True)
    assert [(one.summary.version, one.payload) for one in kept] == ([] if wanted is None else [wanted])
    assert not configs(directory, load(directory), frozenset({("plain", 0)}), 4096, lambda *_: True)
    assert not configs(directory, load(directory), frozenset(), 4096, lambda *_: False)
