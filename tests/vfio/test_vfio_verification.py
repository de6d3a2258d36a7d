"""The destination's device process compares every write with the truth and names the first wrong byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migpool.device import VerificationError
from migpool_plugins.vfio.emulated import EmulatedVfioDevice
from tests.support.vfio.vfio_rig import CHUNK, OpenSide, Saver


@pytest.fixture
def destination(open_side: OpenSide) -> EmulatedVfioDevice:
    """A device that is ready to load."""
    (device,) = open_side("destination")
    device.load_setup(b"")
    return device


@pytest.fixture
def patient(open_side: OpenSide) -> EmulatedVfioDevice:
    """One whose config takes as long as it takes to compare all of its state."""
    (device,) = open_side("destination", load_config_time="1ms")
    device.load_setup(b"")
    return device


def load(device: EmulatedVfioDevice, chunks: list[bytes]) -> None:
    for chunk in chunks:
        device.load_state(memoryview(chunk))


@pytest.fixture
def config(open_side: OpenSide, save: Saver) -> bytes:
    (source,) = open_side("source")
    save(source)
    return source.save_config()


def test_a_missing_chunk_is_named_by_where_the_next_belongs(
    destination: EmulatedVfioDevice, tiny_chunks: list[bytes]
) -> None:
    load(destination, tiny_chunks[:1])
    with pytest.raises(
        VerificationError, match="differs at byte 65536 of the state: what came there belongs at byte 131072"
    ):
        load(destination, tiny_chunks[2:3])


def test_chunks_in_the_wrong_order_fail_at_the_first_of_them(
    destination: EmulatedVfioDevice, tiny_chunks: list[bytes]
) -> None:
    with pytest.raises(
        VerificationError, match="differs at byte 0 of the state: what came there belongs at byte 65536"
    ):
        load(destination, [tiny_chunks[1], tiny_chunks[0]])


@pytest.mark.parametrize("at", [0, 1, 4095, 40000, CHUNK - 1])
def test_a_flipped_byte_is_found_where_it_is(
    at: int, destination: EmulatedVfioDevice, tiny_chunks: list[bytes]
) -> None:
    broken = bytearray(tiny_chunks[1])
    broken[at] ^= 0x10
    load(destination, tiny_chunks[:1])
    with pytest.raises(VerificationError, match=rf"differs at byte {CHUNK + at} of the state; the device was"):
        destination.load_state(memoryview(broken))


def test_a_device_that_failed_refuses_what_comes_after(
    destination: EmulatedVfioDevice, tiny_chunks: list[bytes], config: bytes
) -> None:
    for chunk in (tiny_chunks[1], tiny_chunks[0]):
        with pytest.raises(VerificationError, match="differs at byte 0 of the state"):
            destination.load_state(memoryview(chunk))
    with pytest.raises(VerificationError, match="differs at byte 0 of the state"):
        destination.load_config(config)


def test_state_after_the_end_is_refused(destination: EmulatedVfioDevice, tiny_chunks: list[bytes]) -> None:
    load(destination, tiny_chunks)
    with pytest.raises(VerificationError, match="1 bytes came at byte 262144, but the state ends at byte 262144"):
        destination.load_state(memoryview(b"x"))


def test_a_write_across_the_end_is_refused_whole(destination: EmulatedVfioDevice, tiny_chunks: list[bytes]) -> None:
    load(destination, tiny_chunks[:3])
    with pytest.raises(VerificationError, match="1000000 bytes came at byte 196608, but the state ends at byte 262144"):
        destination.load_state(memoryview(bytes(1_000_000)))


def test_writes_cut_otherwise_than_the_reads_are_accepted(
    destination: EmulatedVfioDevice, tiny_chunks: list[bytes], config: bytes
) -> None:
    state = b"".join(tiny_chunks)
    load(destination, [state[:1], state[1:100_000], state[100_000:]])
    destination.load_config(config)


@pytest.mark.parametrize("chunks", [0, 3])
def test_the_config_is_refused_when_state_is_missing(
    chunks: int, destination: EmulatedVfioDevice, tiny_chunks: list[bytes], config: bytes
) -> None:
    load(destination, tiny_chunks[:chunks])
    with pytest.raises(VerificationError, match=f"incomplete: {chunks * CHUNK} of 262144 bytes have come"):
        destination.load_config(config)
    with pytest.raises(VerificationError, match=f"incomplete: {chunks * CHUNK} of 262144 bytes have come"):
        destination.start()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config[:-1], "the config is 1071 bytes long, 1072 are right"),
        (lambda config: config + b"x", "the config is 1073 bytes long, 1072 are right"),
        (lambda config: b"x" + config[1:], "not one of an emulated VFIO device"),
        (lambda config: config[:20] + bytes([config[20] ^ 1]) + config[21:], "size or digest differs"),
        (lambda config: config[:500] + bytes([config[500] ^ 1]) + config[501:], "the config differs at byte 500"),
    ],
    ids=["short", "long", "magic", "digest", "content"],
)
def test_a_config_that_is_not_the_one_saved_is_refused(
    change: Callable[[bytes], bytes],
    message: str,
    destination: EmulatedVfioDevice,
    tiny_chunks: list[bytes],
    config: bytes,
) -> None:
    load(destination, tiny_chunks)
    with pytest.raises(VerificationError, match=message):
        destination.load_config(change(config))


def test_another_seed_is_another_state(open_side: OpenSide, tiny_chunks: list[bytes]) -> None:
    (other,) = open_side("destination", seed=2)
    other.load_setup(b"")
    with pytest.raises(VerificationError, match=r"differs at byte 0 of the state; the device was"):
        load(other, tiny_chunks)


def test_a_device_that_was_not_started_does_not_verify(
    destination: EmulatedVfioDevice, tiny_chunks: list[bytes], config: bytes
) -> None:
    load(destination, tiny_chunks)
    destination.load_config(config)
    with pytest.raises(VerificationError, match="not been loaded and started"):
        destination.verify()
    destination.start()
    destination.verify()


def test_the_fingerprint_covers_what_moved_and_no_more(
    open_side: OpenSide, destination: EmulatedVfioDevice, tiny_chunks: list[bytes], save: Saver
) -> None:
    (source,) = open_side("source")
    save(source)
    load(destination, tiny_chunks[:3])
    assert source.fingerprint() != destination.fingerprint()
    load(destination, tiny_chunks[3:])
    assert source.fingerprint() == destination.fingerprint()


@pytest.mark.parametrize("at", [1, 4095, 40000, CHUNK - 1])
def test_a_flipped_byte_that_was_not_looked_at_is_found_before_the_config_is_taken(
    at: int, patient: EmulatedVfioDevice, tiny_chunks: list[bytes], config: bytes
) -> None:
    broken = bytearray(tiny_chunks[1])
    broken[at] ^= 0x10
    load(patient, [tiny_chunks[0], bytes(broken), *tiny_chunks[2:]])
    for call in (patient.load_config, patient.load_config):
        with pytest.raises(VerificationError, match=f"differs at byte {CHUNK + at} of the state"):
            call(config)


@pytest.mark.parametrize("at", [0, 4096, CHUNK - 4096])
def test_a_byte_of_each_page_is_looked_at_in_its_own_write(
    at: int, patient: EmulatedVfioDevice, tiny_chunks: list[bytes]
) -> None:
    broken = bytearray(tiny_chunks[1])
    broken[at] ^= 0x10
    load(patient, tiny_chunks[:1])
    with pytest.raises(VerificationError, match=f"differs at byte {CHUNK + at} of the state"):
        load(patient, [bytes(broken)])


def test_chunks_in_the_wrong_order_fail_in_their_write_also_where_more_is_compared_later(
    patient: EmulatedVfioDevice, tiny_chunks: list[bytes]
) -> None:
    with pytest.raises(VerificationError, match="what came there belongs at byte 65536"):
        load(patient, tiny_chunks[1:2])


def test_what_is_compared_later_runs_when_it_is_right(
    patient: EmulatedVfioDevice, tiny_chunks: list[bytes], config: bytes
) -> None:
    load(patient, tiny_chunks)
    patient.load_config(config)
    patient.start()
    patient.verify()
