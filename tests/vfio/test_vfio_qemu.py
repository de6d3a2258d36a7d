"""VFIO devices with QEMU's names and QEMU's config: taken out of a recorded stream, sent, refused, and held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from migpool.core.machine import Machine
from migpool.device import Device, DeviceContext, DeviceError, OptionValue, Side, VerificationError
from migpool.errors import DescriptionError
from migpool.migration.settings import Settings
from migpool.migration.states import State
from migpool.schedulers.inline import InlineScheduler
from migpool.streams.file.file import StreamFile
from migpool.streams.snapshot import SnapshotDestination, SnapshotSource
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.kernel import open_kernel
from migpool_plugins.vfio.kernel.host import Host
from migpool_plugins.vfio.migration import MigrationState
from migpool_plugins.vfio.qemu import QemuVfioDevice, captured_configs
from migpool_plugins.vmsd import devices as captured_devices
from tests.support.inspections import inspect_file
from tests.support.rig import KIB, Pair
from tests.support.vfio.fake_driver import HEADER, FakeDevice, FakeDriver
from tests.support.vfio.made_host import UUIDS, MadeHost
from tests.support.vfio.qemu_streams import MACHINE, PLACES, config, with_vfio

OTHER = HEADER + bytes(10)
SENT = HEADER + b"other data"
QEMU = Settings(channels=2, chunk=64 * KIB, budget=1024 * KIB, peer_limit=20, credits=False, uuid="0" * 32)


class Hosts:
    """Devices of drivers made in Python, each on a host of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened = ExitStack()
        self.made: list[FakeDevice] = []

    def device(self, side: Side, content: bytes = OTHER, name: str = PLACES[0]) -> QemuVfioDevice:
        host = MadeHost(self._folder / str(len(self.made)))
        host.vfio("7")
        host.mediated(UUIDS[0])
        self.made.append(FakeDevice(content=content))
        driver = FakeDriver(host.root, {UUIDS[0]: self.made[-1]})
        (backend,) = open_kernel([UUIDS[0]], host=Host(host.root), calls=driver)
        device = QemuVfioDevice(name, backend, side, config=config())
        self._opened.callback(device.close)
        return device

    def close(self) -> None:
        self._opened.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


def machine_of(stream: Path, side: Side) -> list[Device]:
    options: dict[str, OptionValue] = {"stream": str(stream), "memory": True, "exclude": "*/vfio"}
    return captured_devices(DeviceContext(side, options))


# ---- what a recorded stream says


def test_every_form_of_name_is_found_in_a_stream(tmp_path: Path) -> None:
    stream = with_vfio(tmp_path / "vm.mig", PLACES)
    assert captured_configs(stream, PLACES[::-1]) == [config()] * 3


def test_a_device_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    stream = with_vfio(tmp_path / "vm.mig", PLACES[1:])
    with pytest.raises(
        DeviceError, match=r"idstr is '0000:00:03.0/vfio', but .* has 0000:00:03.0:00.0/vfio, 0000:40:04"
    ):
        captured_configs(stream, PLACES[:1])


@pytest.mark.parametrize("content", [b"", bytes(300), bytes.fromhex("ffffffffef100001"), config()])
def test_a_section_without_a_config_is_told(tmp_path: Path, content: bytes) -> None:
    stream = with_vfio(tmp_path / "vm.mig", content=content)
    with pytest.raises(DeviceError, match=r"which has no config of 0000:00:03.0/vfio: record it with receive --store"):
        captured_configs(stream, PLACES[:1])


@pytest.mark.parametrize(
    ("options", "count", "words"),
    [
        ({"stream": "vm.mig"}, 1, "vfio option stream is 'vm.mig': use the path of a file, and with it idstr"),
        ({"stream": 7, "idstr": "x"}, 1, "vfio option stream is 7: use the path"),
        ({"idstr": "x"}, 2, "vfio option idstr has 1 for 2 devices"),
        ({"idstr": 7}, 1, "vfio option idstr is 7: use a name, such as"),
    ],
)
def test_wrong_options_are_named(options: dict[str, OptionValue], count: int, words: str) -> None:
    with pytest.raises(DeviceError) as caught:
        devices(DeviceContext("source", {"backend": "kernel", "device": "ffff:ff:1f.7", **options}, count))
    assert str(caught.value).startswith(words)


def test_a_stream_that_is_none_is_told(tmp_path: Path) -> None:
    options: dict[str, OptionValue] = {"idstr": "x", "stream": str(tmp_path / "none"), "device": "ffff:ff:1f.7"}
    with pytest.raises(DescriptionError, match="cannot be read: No such file"):
        devices(DeviceContext("source", {"backend": "kernel", **options}))


def test_emulated_devices_take_such_a_name_too() -> None:
    made = devices(DeviceContext("source", {"idstr": list(PLACES[:2]), "size": "4KiB"}, 2))
    try:
        assert [device.idstr for device in made] == list(PLACES[:2])
    finally:
        for device in made:
            device.close()


# ---- one device


def loaded(device: QemuVfioDevice, content: bytes, sent: bytes) -> None:
    device.load_setup(b"")
    device.load_state(memoryview(content))
    device.load_config(sent)


def test_a_config_is_held_and_given_on_as_it_came(hosts: Hosts) -> None:
    device = hosts.device("destination")
    came = bytearray(config())
    came[0x60] ^= 0xFF
    assert device.measure_config(memoryview(came + b"more")) == len(came)
    assert device.measure_config(memoryview(came)[:-1]) is None
    loaded(device, SENT, bytes(came))
    assert device.save_config() == came
    device.start()
    assert (hosts.made[0].here, hosts.made[0].content) == (MigrationState.RUNNING, SENT)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (config(vendor=0x10DE), "vendor and device 4348:3253, found 10de:3253"),
        (config(device=1), "vendor and device 4348:3253, found 4348:0001"),
        (config(subsystem=9), "subsystem 4348:3253, found 4348:0009"),
        (config(space=256), "whose has 4116 bytes, found 276"),
        (b"", "whose has 4116 bytes, found 0"),
    ],
)
def test_a_config_of_another_device_is_refused_and_its_state_is_not_used(hosts: Hosts, sent: bytes, words: str) -> None:
    device = hosts.device("destination")
    before = hosts.made[0].content
    with pytest.raises(VerificationError, match=words):
        loaded(device, SENT, sent)
    assert (hosts.made[0].here, hosts.made[0].content) == (MigrationState.RUNNING, before)
    with pytest.raises(DeviceError):
        device.start()


# ---- whole machines


def test_a_captured_machine_with_a_real_device_crosses_as_qemu_has_it(hosts: Hosts, tmp_path: Path) -> None:
    stream = with_vfio(tmp_path / "vm.mig")
    content = HEADER + bytes(range(256)) * 700
    source = [*machine_of(stream, "source"), hosts.device("source", content)]
    destination = [*machine_of(stream, "destination"), hosts.device("destination", bytes(len(content)))]
    try:
        sent, received = Pair(source, destination, settings=QEMU, names=(MACHINE, MACHINE)).run(tmp_path)
        assert (sent.error, received.error) == ("", "")
        assert sent.outcome is received.outcome is State.COMPLETED
        assert hosts.made[1].content == content
        for ours, theirs in zip(source[1:-1], destination[1:-1], strict=True):
            assert ours.fingerprint() == theirs.fingerprint() is not None
    finally:
        for device in (*source[:-1], *destination[:-1]):
            device.close()


def test_its_snapshot_is_a_stream_as_qemu_writes_it_and_comes_back(hosts: Hosts, tmp_path: Path) -> None:
    content = HEADER + bytes(range(200))
    path = tmp_path / "machine.mig"
    stream = with_vfio(tmp_path / "vm.mig")
    machine = Machine(MACHINE, [*machine_of(stream, "source"), hosts.device("source", content)])
    with StreamFile(path) as file:
        report = SnapshotSource(machine, QEMU, InlineScheduler(), file).save()
    assert report.error == ""
    summary = inspect_file(path)
    assert summary.problem is None
    # QEMU takes a PART of section 0 for one of its first device, whatever began with that number.
    assert 0 not in {section.section_id for section in summary.sections}
    kinds = [section.kind for section in summary.sections if section.idstr == PLACES[0]]
    assert (kinds[0], kinds[-2:]) == ("START", ["END", "FULL"])
    emptied = hosts.device("destination", bytes(len(content)))
    back = Machine(MACHINE, [*machine_of(stream, "destination"), emptied])
    SnapshotDestination(back, QEMU, InlineScheduler()).load(path)
    assert hosts.made[1].content == content
    for slot in (*machine, *back):
        slot.device.close()
