"""A vCPU stops, moves and goes on exactly; whatever is changed on the way is found."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from migpool.device import DeviceContext, DeviceError, VerificationError
from migpool_plugins.vcpu import devices
from migpool_plugins.vcpu.device import VcpuDevice
from tests.support import LONG
from tests.support.making_vcpus import MakeVcpus, open_files
from tests.support.thinned import every_value

LIMIT = 10.0
HEADER = 32


def stop_and_save(source: list[VcpuDevice]) -> list[bytes]:
    """Stop every vCPU once it has run for a while, and save them all."""
    for device in source:
        device.verify()
    for device in source:
        device.stop()
    return [device.save_config() for device in source]


def field_offset(device: VcpuDevice, path: str) -> int:
    """Where a field begins in the device's config, by the description that migpool puts into the stream."""
    wanted = path.split(".")
    found: dict[str, int] = {}

    def walk(fields: object, offset: int, names: list[str]) -> int:
        assert isinstance(fields, list)
        for field in fields:
            place = [*names, str(field["name"])]
            found[".".join(place)] = offset
            inner = field.get("struct")
            if inner is not None:
                walk(inner["fields"], offset, place)
            offset += int(field["size"])
        return offset

    description = device.describe_config()
    assert isinstance(description, Mapping)
    walk(description["fields"], 0, [])
    return found[".".join(wanted)]


def flipped(config: bytes, offset: int, bit: int = 0) -> bytes:
    changed = bytearray(config)
    changed[offset] ^= 1 << bit
    return bytes(changed)


def test_vcpus_move_and_go_on_exactly(backend: str, make_vcpus: MakeVcpus) -> None:
    source, destination = make_vcpus("source", backend, count=3), make_vcpus("destination", backend, count=3)
    for left, right in zip(source, destination, strict=True):
        right.load_setup(left.save_setup())
    configs = stop_and_save(source)
    for device, config in zip(destination, configs, strict=True):
        device.load_config(config)
    for device in destination:
        device.start()
    for left, right in zip(source, destination, strict=True):
        right.verify()
        assert left.fingerprint() == right.fingerprint() is not None
    assert len({device.fingerprint() for device in destination}) == 3
    assert [(device.idstr, device.instance_id, device.iterable) for device in source] == [
        ("vcpu", index, False) for index in range(3)
    ]


def test_vcpus_move_again_from_where_they_went(backend: str, make_vcpus: MakeVcpus) -> None:
    first, second, third = (
        make_vcpus("source", backend),
        make_vcpus("destination", backend),
        make_vcpus("destination", backend),
    )
    for left, right in ((first, second), (second, third)):
        for device, config in zip(right, stop_and_save(left), strict=True):
            device.load_config(config)
        for device in right:
            device.start()
    for device in third:
        device.verify()


def test_the_source_goes_on_exactly_after_a_failed_migration(backend: str, make_vcpus: MakeVcpus) -> None:
    source = make_vcpus("source", backend)
    stop_and_save(source)
    for device in source:
        device.resume()
    for device in source:
        device.verify()
    earlier = [device.fingerprint() for device in source]
    stop_and_save(source)
    assert all(then != now for then, now in zip(earlier, [device.fingerprint() for device in source], strict=True))


def test_stopping_and_resuming_more_than_once_is_harmless(backend: str, make_vcpus: MakeVcpus) -> None:
    source = make_vcpus("source", backend)
    for device in source:
        device.resume()
        device.stop()
        device.stop()
    first = [device.save_config() for device in source]
    second = [device.save_config() for device in source]
    assert [len(config) for config in first] == [len(config) for config in second]
    for device in source:
        device.resume()
        device.resume()
        device.verify()


@pytest.mark.parametrize(
    "field", ["regs.rax", "regs.rbx", "regs.rcx", "regs.rdi", "regs.r8", "regs.r9", "regs.r10", "page"]
)
def test_a_bit_flipped_where_the_guest_computes_fails_the_proof(
    backend: str, field: str, make_vcpus: MakeVcpus
) -> None:
    source, destination = make_vcpus("source", backend, count=1), make_vcpus("destination", backend, count=1)
    (config,) = stop_and_save(source)
    destination[0].load_config(flipped(config, field_offset(source[0], field)))
    destination[0].start()
    with pytest.raises(VerificationError, match=r"^vCPU 0 after [0-9]+ iterations: "):
        destination[0].verify()
    assert destination[0].fingerprint() != source[0].fingerprint()


@pytest.mark.parametrize(("slot", "bit"), every_value([1, 100, 511], [0, 7]))
def test_a_bit_flipped_anywhere_in_the_page_fails_the_proof(
    backend: str, slot: int, bit: int, make_vcpus: MakeVcpus
) -> None:
    source, destination = make_vcpus("source", backend, count=1), make_vcpus("destination", backend, count=1)
    (config,) = stop_and_save(source)
    destination[0].load_config(flipped(config, field_offset(source[0], "page") + slot * 8, bit))
    destination[0].start()
    with pytest.raises(VerificationError, match=f"slot {slot} of its page holds"):
        destination[0].verify()


def test_a_bit_flipped_in_the_sse_register_fails_the_proof(backend: str, make_vcpus: MakeVcpus) -> None:
    source, destination = make_vcpus("source", backend, count=1), make_vcpus("destination", backend, count=1)
    (config,) = stop_and_save(source)
    destination[0].load_config(flipped(config, field_offset(source[0], "fpu.xmm0_low")))
    destination[0].start()
    with pytest.raises(VerificationError, match="the checksum in xmm0 is"):
        destination[0].verify()


@pytest.mark.parametrize("field", ["regs.rsi", "regs.r12", "regs.r15"])
def test_a_bit_flipped_where_the_guest_does_not_look_changes_the_fingerprint(
    backend: str, field: str, make_vcpus: MakeVcpus
) -> None:
    source, destination = make_vcpus("source", backend, count=1), make_vcpus("destination", backend, count=1)
    (config,) = stop_and_save(source)
    destination[0].load_config(flipped(config, field_offset(source[0], field)))
    destination[0].start()
    destination[0].verify()
    assert destination[0].fingerprint() != source[0].fingerprint()


def test_a_guest_that_goes_astray_fails_the_proof(backend: str, make_vcpus: MakeVcpus) -> None:
    source, destination = make_vcpus("source", backend, count=1), make_vcpus("destination", backend, count=1)
    (config,) = stop_and_save(source)
    # Bit 40 of rip: nothing is mapped there.
    destination[0].load_config(flipped(config, field_offset(source[0], "regs.rip") + 2))
    destination[0].start()
    with pytest.raises(VerificationError, match=r"^vCPU 0 has failed: the guest (left by|was stopped)"):
        destination[0].verify()


def test_a_guest_that_never_ends_its_batch_is_named_and_brought_out(backend: str, make_vcpus: MakeVcpus) -> None:
    (device,) = make_vcpus("source", backend, count=1, batch=1 << 32, limit_s=0.5)
    with pytest.raises(VerificationError, match=r"^vCPU 0 has not ended 3 batches in 0.5 s$"):
        device.verify()
    with pytest.raises(DeviceError, match=r"^vCPU 0 has not stopped within 0.5 s: its guest does not end its batch$"):
        device.stop()
    device.close()
    assert "vcpu-0" not in {thread.name for thread in threading.enumerate()}


def test_abort_ends_a_stop_at_once_and_resume_recovers(backend: str, make_vcpus: MakeVcpus) -> None:
    (device,) = make_vcpus("source", backend, count=1, batch=1 << 32, limit_s=60)
    raised: list[DeviceError] = []

    def stop() -> None:
        try:
            device.stop()
        except DeviceError as error:
            raised.append(error)

    stopping = threading.Thread(target=stop)
    stopping.start()
    device.abort()
    stopping.join(LIMIT)
    assert not stopping.is_alive()
    assert [str(error) for error in raised] == ["vCPU 0: the migration was aborted"]
    with pytest.raises(DeviceError, match="aborted"):
        device.save_setup()
    device.resume()
    assert device.save_setup()


def test_calls_out_of_order_are_refused(backend: str, make_vcpus: MakeVcpus) -> None:
    (source,), (destination,) = make_vcpus("source", backend, count=1), make_vcpus("destination", backend, count=1)
    with pytest.raises(DeviceError, match=r"^vCPU 0 runs: stop it before its state is saved$"):
        source.save_config()
    with pytest.raises(DeviceError, match=r"^vCPU 0 has no state yet: load its config before it is started$"):
        destination.start()
    source.stop()
    config = source.save_config()
    source.resume()
    with pytest.raises(DeviceError, match=r"^vCPU 0 runs: a state is loaded before it is started$"):
        source.load_config(config)
    destination.close()
    with pytest.raises(DeviceError, match=r"^vCPU 0 is closed$"):
        destination.load_config(config)


def test_a_machine_closes_with_its_last_vcpu(backend: str, make_vcpus: MakeVcpus) -> None:
    source = make_vcpus("source", backend, count=3)
    source[1].close()
    source[1].close()
    source[0].verify()
    source[0].close()
    source[2].verify()
    source[2].close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("vcpu-")]


def test_many_machines_leave_nothing(backend: str) -> None:
    before = (threading.active_count(), open_files())
    for _ in range(50 if LONG else 8):
        for device in devices(DeviceContext("source", {"backend": backend})):
            device.close()
    assert (threading.active_count(), open_files()) == before
