"""Emulated devices with engines: parts with tags, several at once, over either transport."""

from __future__ import annotations

import mmap
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from migpool.device import DeviceContext, DeviceError, VerificationError
from migpool_plugins.vfio import devices
from migpool_plugins.vfio.emulated import TaggedEmulatedDevice
from migpool_plugins.vfio.profiles import PAGE
from tests.support.vfio.vfio_rig import CHUNK, Blocked, OpenSide

ENGINES = 4
FOREVER = 600.0


def opened(open_side: OpenSide, side: str, **options: object) -> TaggedEmulatedDevice:
    (device,) = open_side(side, {"engines": ENGINES, **options})  # type: ignore[arg-type, dict-item]
    assert isinstance(device, TaggedEmulatedDevice)
    return device


def room() -> memoryview:
    return memoryview(mmap.mmap(-1, 1 << 20))


def read_all(device: TaggedEmulatedDevice, callers: int = ENGINES, size: int = 1 << 20) -> list[tuple[int, bytes]]:
    """Save every part with several callers at once, in the order in which they were given."""
    got: list[tuple[int, bytes]] = []

    def read() -> None:
        buffer = room()[:size]
        while (part := device.save_part(buffer)) is not None:
            got.append((part.tag, bytes(buffer[: part.length])))

    with ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(read) for _ in range(callers)]:
            done.result()
    return got


def saved(device: TaggedEmulatedDevice, **how: int) -> tuple[bytes, list[tuple[int, bytes]], bytes]:
    setup = device.save_setup()
    device.stop()
    parts = read_all(device, **how)
    return setup, parts, device.save_config()


@pytest.mark.parametrize("size", [PAGE, 3 * PAGE, 1 << 20])
@pytest.mark.parametrize("callers", [1, 2, 9])
def test_parts_are_loaded_in_any_order_and_the_state_is_the_sources(
    open_side: OpenSide, callers: int, size: int
) -> None:
    source, destination = opened(open_side, "source", size=200_001), opened(open_side, "destination", size=200_001)
    setup, parts, config = saved(source, callers=callers, size=size)
    assert sum(len(data) for _, data in parts) == 200_001
    assert max(len(data) for _, data in parts) == min(size, CHUNK)
    destination.load_setup(setup)
    random.Random(callers).shuffle(parts)
    with ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(destination.load_part, tag, memoryview(data)) for tag, data in parts]:
            done.result()
    destination.load_config(config)
    destination.start()
    destination.verify()
    assert destination.fingerprint() == source.fingerprint()


def test_as_many_parts_as_there_are_engines_are_served_at_once(open_side: OpenSide) -> None:
    """One that waits for ever for its part leaves the other engines free to give all the rest."""
    device = opened(open_side, "source", fault={"at": CHUNK, "kind": "stall"})
    device.save_setup()
    device.stop()
    buffer = room()
    first = device.save_part(buffer)
    stalled = Blocked(lambda: device.save_part(room()))
    others = [device.save_part(buffer) for _ in range(3)]
    assert first is not None
    assert first.tag == 0
    assert [part and part.tag * PAGE // CHUNK for part in others] == [2, 3, None]
    device.abort()
    assert isinstance(stalled.ended(), DeviceError)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_an_abort_ends_every_engines_wait_and_the_device_is_used_again(open_side: OpenSide, side: str) -> None:
    slow = "read_latency" if side == "source" else "write_latency"
    device = opened(open_side, side, **{slow: FOREVER})
    begin = device.save_setup if side == "source" else partial(device.load_setup, b"")
    begin()
    if side == "source":
        device.stop()
    # One caller more than there are engines waits for an engine.
    calls = [
        Blocked(partial(device.save_part, room()) if side == "source" else partial(load, device, number))
        for number in range(ENGINES + 1)
    ]
    device.abort()
    device.abort()
    for call in calls:
        assert "aborted" in str(call.ended())
    if side == "source":  # the other end's is closed
        device.wake()
        device.resume()
        begin()


def load(device: TaggedEmulatedDevice, number: int) -> None:
    device.load_part(number, memoryview(bytes(PAGE)))


def test_a_read_that_fails_is_told_once_and_in_the_same_words(open_side: OpenSide) -> None:
    device = opened(open_side, "source", fault={"at": CHUNK + 5, "kind": "error"})
    device.save_setup()
    device.stop()
    said: set[str] = set()
    for _ in range(3):
        try:
            read_all(device)
        except DeviceError as error:
            said.add(str(error))
    (told,) = said
    assert f"the read failed at byte {CHUNK + 5} of the state" in told
    assert "went to STOP" in told
    device.resume()
    assert len(saved(device)[1]) == 4


@pytest.mark.parametrize(
    ("tag", "length", "words"),
    [
        (0, PAGE, "the part at byte 0 has come before"),
        (1, PAGE, "the part at byte 4096 has come before"),
        (64, 1, "1 bytes came at byte 262144, but the state ends at byte 262144"),
        (63, PAGE + 1, "4097 bytes came at byte 258048, but"),
        (16, 0, "the part at byte 65536 has no bytes"),
        (16, PAGE, "content differs at byte 65536"),
        (2**32 - 1, 1, "but the state ends"),
    ],
)
def test_a_part_that_cannot_be_is_refused_and_the_device_stays_refused(
    open_side: OpenSide, tag: int, length: int, words: str
) -> None:
    source, destination = opened(open_side, "source"), opened(open_side, "destination")
    setup, parts, config = saved(source)
    destination.load_setup(setup)
    first = dict(parts)[0]
    destination.load_part(0, memoryview(first)[: 2 * PAGE])
    with pytest.raises(VerificationError, match=words) as refused:
        destination.load_part(tag, memoryview(bytes(length)))
    assert "was reset" in str(refused.value)
    with pytest.raises(VerificationError, match=words):
        destination.load_part(32, memoryview(first))
    with pytest.raises(VerificationError, match=words):
        destination.load_config(config)


def test_a_part_that_is_missing_is_missed_at_the_config(open_side: OpenSide) -> None:
    source, destination = opened(open_side, "source"), opened(open_side, "destination")
    setup, parts, config = saved(source)
    destination.load_setup(setup)
    for tag, data in parts[1:]:
        destination.load_part(tag, memoryview(data))
    with pytest.raises(VerificationError, match="196608 of 262144 bytes have come"):
        destination.load_config(config)


def test_a_device_process_that_ends_is_said_to_have_ended(open_side: OpenSide) -> None:
    device = opened(open_side, "source", fault={"at": 0, "kind": "crash"})
    device.save_setup()
    device.stop()
    with pytest.raises(DeviceError, match=r"the device process ended \(exit status 70\)"):
        read_all(device)


def test_a_device_with_tags_and_one_without_are_not_taken_for_the_same(open_side: OpenSide) -> None:
    tagged, plain = opened(open_side, "source"), open_side("destination")[0]
    with pytest.raises(DeviceError, match="give both engines or none"):
        plain.load_setup(tagged.save_setup())
    with pytest.raises(DeviceError, match="give both engines or none"):
        opened(open_side, "destination").load_setup(open_side("source")[0].save_setup())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engines": 65}, "engines is 65: use a whole number from 0 to 64"),
        ({"engines": True}, "use a whole number from 0 to 64"),
        ({"engines": 2, "precopy": True}, "precopy is True: a device with engines has none of it"),
        ({"engines": 2, "pollable": True}, "pollable is True: a device with engines has none of it"),
        ({"engines": 2, "chunk": 5000}, "chunk is 5000: with engines use a multiple of 4096 bytes"),
        ({"engines": 2, "fault": {"at": 1, "kind": "short-read"}}, "a device with engines gives whole parts"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        devices(DeviceContext("source", {"profile": "tiny", **options}, 1, 1))  # type: ignore[dict-item]
