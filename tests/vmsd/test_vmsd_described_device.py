"""A device that declares its state: what it gets for it, on both sides of a migration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest

from migpool.device import DeviceError
from migpool.vmsd.fields import buffer, struct, timer, u8, u32
from migpool_plugins.vmsd import DescribedDevice, Description


@dataclass
class Channel:
    level: int = 0
    fires: int | None = None


CHANNEL = Description("buzzer_channel", fields=[u8("level"), timer("fires")])


class Buzzer(DescribedDevice):
    """A device with two versions, a counted part, a condition and a subsection."""

    description = Description(
        "buzzer",
        version=3,
        minimum_version=2,
        fields=[
            u8("used"),
            struct("channels", CHANNEL, length="used", new=Channel),
            u8("size", when=lambda buzzer, _: buzzer.has_tune),
            buffer("tune", "size", when=lambda buzzer, _: buzzer.is_long_enough()),
            u32("volume", since=3),
        ],
        subsections=[
            Description("buzzer/mute", version=1, fields=[u8("muted")], needed=lambda buzzer: buzzer.muted != 0),
        ],
    )

    def __init__(self, *, has_tune: bool = False) -> None:
        self.used = 0
        self.channels: list[Channel] = []
        self.has_tune = has_tune
        self.size = 0
        self.tune = b""
        self.volume = 0
        self.muted = 0

    def is_long_enough(self) -> bool:
        return self.has_tune and self.size > 1


def filled() -> Buzzer:
    buzzer = Buzzer(has_tune=True)
    buzzer.used = 2
    buzzer.channels = [Channel(1, 500), Channel(2, None)]
    buzzer.size, buzzer.tune = 3, b"abc"
    buzzer.volume = 0x11223344
    buzzer.muted = 1
    return buzzer


DATA = bytes.fromhex("02 01 00000000000001f4 02 ffffffffffffffff 03 616263 11223344") + b"\x05\x0bbuzzer/mute\0\0\0\1\1"


def values(buzzer: Buzzer) -> dict[str, object]:
    return {name: value for name, value in vars(buzzer).items() if not name.startswith("_")}


def test_name_and_version_come_from_the_description() -> None:
    assert (Buzzer.idstr, Buzzer.version, Buzzer().exact_config()) == ("buzzer", 3, True)

    class Placed(Buzzer):
        idstr = "0000:00:05.0/buzzer"

    assert (Placed.idstr, Placed.version) == ("0000:00:05.0/buzzer", 3)


def test_it_saves_measures_and_loads_its_attributes() -> None:
    source, destination = filled(), Buzzer(has_tune=True)
    assert source.fingerprint() is None
    data = source.save_config()
    assert data == DATA
    destination.check_version(source.version)
    before = values(destination)
    stream = memoryview(data + b"\x7e")
    for end in range(len(data) + 1):
        assert destination.measure_config(stream[:end]) is None
    assert destination.measure_config(stream) == len(data)
    assert values(destination) == before
    destination.load_config(data)
    assert values(destination) == values(source)
    assert destination.fingerprint() == source.fingerprint() == hashlib.sha256(data).digest()


def test_measuring_sees_what_came_and_what_the_object_has() -> None:
    assert Buzzer().measure_config(memoryview(bytes.fromhex("00 00000000 7e"))) == 5
    assert Buzzer(has_tune=True).measure_config(memoryview(bytes.fromhex("00 01 00000000 7e"))) == 6
    assert Buzzer(has_tune=True).measure_config(memoryview(bytes.fromhex("00 02 6162 00000000 7e"))) == 8


def test_measuring_into_objects_that_are_there_leaves_them_alone() -> None:
    buzzer = filled()
    data = bytes.fromhex("02 07 0000000000000001 08 0000000000000002 00 00000000 7e")
    assert buzzer.measure_config(memoryview(data)) == len(data) - 1
    assert buzzer.channels == [Channel(1, 500), Channel(2, None)]


def test_an_older_state_is_loaded_in_its_own_layout() -> None:
    destination = Buzzer()
    destination.check_version(2)
    old = bytes.fromhex("01 05 0000000000000007")
    assert destination.measure_config(memoryview(old + b"\x7e")) == len(old)
    destination.load_config(old)
    assert destination.channels == [Channel(5, 7)]
    assert destination.volume == 0


@pytest.mark.parametrize("version", [1, 4])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(DeviceError, match=f"buzzer: the state has version {version}"):
        Buzzer().check_version(version)


def test_it_describes_what_it_saved() -> None:
    buzzer = filled()
    described = buzzer.describe_config()
    buzzer.save_config()
    assert buzzer.describe_config() == described
    assert described is not None
    assert (described["vmsd_name"], described["version"]) == ("buzzer", 3)
    entries = described["fields"]
    assert isinstance(entries, list)
    assert [(each["name"], each["type"], each["size"], each.get("array_len")) for each in entries] == [
        ("used", "uint8", 1, None),
        ("channels", "struct", 9, 2),
        ("size", "uint8", 1, None),
        ("tune", "buffer", 3, None),
        ("volume", "uint32", 4, None),
    ]


def test_bytes_that_are_no_state_are_refused() -> None:
    with pytest.raises(
        DeviceError, match=r"buzzer: field channels at byte 1 .*: expected 9 elements of at least 9 byte"
    ):
        Buzzer().load_config(b"\x09")
    with pytest.raises(DeviceError, match=r"buzzer at byte 5 .*: subsection 'buzzer/loud' is not known here"):
        Buzzer().measure_config(memoryview(bytes(5) + b"\x05\x0bbuzzer/loud\0\0\0\1"))


def test_after_an_abort_it_neither_saves_nor_loads() -> None:
    buzzer = filled()
    buzzer.abort()
    for call in (buzzer.save_config, lambda: buzzer.load_config(DATA), lambda: buzzer.measure_config(memoryview(DATA))):
        with pytest.raises(DeviceError, match="aborted"):
            call()


@dataclass
class Registers:
    control: int = 0


def test_another_object_than_the_device_can_be_described() -> None:
    class Wrapped(DescribedDevice):
        description = Description("wrapped", fields=[u32("control")])

        def __init__(self, registers: Registers) -> None:
            self.registers = registers

        def described(self) -> object:
            return self.registers

    destination = Wrapped(Registers())
    destination.load_config(Wrapped(Registers(7)).save_config())
    assert destination.registers == Registers(7)


def test_a_dotted_field_is_measured_without_touching_the_inner_object() -> None:
    class Dotted(DescribedDevice):
        description = Description("dotted", fields=[u8("regs.control"), u8("x", length="regs.control")])

        def __init__(self) -> None:
            self.regs = Registers(9)
            self.x: list[int] = []

    device = Dotted()
    assert device.measure_config(memoryview(b"\x02ab\x7e")) == 3
    assert device.regs == Registers(9)
