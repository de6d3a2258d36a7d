"""A wrong option is refused with one line that names it and says what it may be."""

from __future__ import annotations

import pytest

from migpool.device import DeviceContext, OptionValue
from migpool.errors import UsageError
from migpool_plugins.vcpu import devices
from migpool_plugins.vcpu.options import VcpuOptions


def test_without_options_the_defaults_hold() -> None:
    assert VcpuOptions.parse({}) == VcpuOptions("auto", 0, 0.0, 5.0, "small", "together")


def test_options_are_taken_as_written() -> None:
    given: dict[str, OptionValue] = {"backend": "unicorn", "batch": 100, "halt_ms": 2, "limit_s": 0.5, "save": "each"}
    assert VcpuOptions.parse(given) == VcpuOptions("unicorn", 100, 2.0, 0.5, save="each")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bakend": "kvm"}, "vcpu: there is no option bakend; there are backend, batch, halt_ms, limit_s, cpu, save"),
        ({"backend": "xen"}, 'vcpu: backend is \'xen\', but must be "auto", "kvm" or "unicorn"'),
        ({"backend": ["kvm"]}, 'vcpu: backend is [\'kvm\'], but must be "auto", "kvm" or "unicorn"'),
        ({"cpu": "big"}, 'vcpu: cpu is \'big\', but must be "small" or "avx"'),
        ({"save": "all"}, 'vcpu: save is \'all\', but must be "together" or "each"'),
        ({"batch": -1}, "vcpu: batch is -1, but must be a whole number from 0 to 4294967296"),
        ({"batch": True}, "vcpu: batch is True, but must be a whole number from 0 to 4294967296"),
        ({"batch": 1.5}, "vcpu: batch is 1.5, but must be a whole number from 0 to 4294967296"),
        ({"halt_ms": "long"}, "vcpu: halt_ms is 'long', but must be a number from 0.0 on"),
        ({"halt_ms": float("inf")}, "vcpu: halt_ms is inf, but must be a number from 0.0 on"),
        ({"limit_s": 0}, "vcpu: limit_s is 0, but must be a number from 0.1 on"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, OptionValue], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        VcpuOptions.parse(options)
    assert str(refused.value) == message


@pytest.mark.parametrize("count", [0, -1, 257])
def test_a_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"^vcpu: count is {count}, but must be from 1 to 256$"):
        devices(DeviceContext("source", {}, count))
