"""A wrong option is refused with one line that names it and says what it may be."""

from __future__ import annotations

import pytest

from migpool.device import DeviceContext, DeviceError, OptionValue
from migpool_plugins.vcpu import devices, outlines
from migpool_plugins.vcpu.options import VcpuOptions


def test_without_options_the_defaults_hold() -> None:
    assert VcpuOptions.parse({}) == VcpuOptions("auto", 0, 0.0, 5.0, "small", "together")


def test_options_are_taken_as_written() -> None:
    given: dict[str, OptionValue] = {"backend": "unicorn", "batch": 100, "halt_ms": 2, "limit_s": 0.5, "save": "each"}
    assert VcpuOptions.parse(given) == VcpuOptions("unicorn", 100, 2.0, 0.5, save="each")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bakend": "kvm"}, "vcpu option bakend is unknown: use backend, batch, cpu, halt_ms, limit_s, optional, save"),
        ({"backend": "xen"}, 'vcpu option backend is \'xen\': use "auto", "kvm" or "unicorn"'),
        ({"backend": ["kvm"]}, 'vcpu option backend is [\'kvm\']: use "auto", "kvm" or "unicorn"'),
        ({"cpu": "big"}, 'vcpu option cpu is \'big\': use "small" or "avx"'),
        ({"save": "all"}, 'vcpu option save is \'all\': use "together" or "each"'),
        ({"batch": -1}, "vcpu option batch is -1: use a whole number from 0 to 4294967296"),
        ({"batch": True}, "vcpu option batch is True: use a whole number from 0 to 4294967296"),
        ({"batch": 1.5}, "vcpu option batch is 1.5: use a whole number from 0 to 4294967296"),
        ({"halt_ms": "long"}, "vcpu option halt_ms is 'long': use a number from 0.0 on"),
        ({"halt_ms": float("inf")}, "vcpu option halt_ms is inf: use a number from 0.0 on"),
        ({"limit_s": 0}, "vcpu option limit_s is 0: use a number from 0.1 on"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, OptionValue], message: str) -> None:
    with pytest.raises(DeviceError) as refused:
        VcpuOptions.parse(options)
    assert str(refused.value) == message


@pytest.mark.parametrize("count", [0, -1, 257])
def test_a_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(DeviceError, match=f"^vcpu: count is {count}, but must be from 1 to 256$"):
        devices(DeviceContext("source", {}, count))


@pytest.mark.parametrize("save", ["together", "each"])
def test_what_the_simulator_is_told_of_vcpus_is_what_they_are(save: str, backend: str) -> None:
    told = outlines(DeviceContext("source", {"save": save}, 3))
    made = devices(DeviceContext("source", {"save": save, "backend": backend}, 3))
    try:
        for outline, device in zip(told, made, strict=True):
            assert not outline.size
            assert outline.config_lock == device.save_lock == device.load_lock
            assert (outline.config_channel == "multifd") == device.config_job
    finally:
        for device in made:
            device.close()


def test_an_outline_of_vcpus_that_cannot_be_is_refused() -> None:
    with pytest.raises(DeviceError, match="count is 257"):
        outlines(DeviceContext("source", {}, 257))
