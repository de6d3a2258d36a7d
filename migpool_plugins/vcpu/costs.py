"""What vCPUs take, for the simulator: as seen with KVM on the host of ``docs/results/``, beyond what any config takes.

A host's own figures differ: beside devices that take tens of milliseconds that is little. A load reads the state back,
for the fingerprint.
"""

from __future__ import annotations

from typing import Final

from migpool.device import Outline, StateCosts
from migpool_plugins.vcpu.options import VcpuOptions

_STOP: Final = 0.5e-3
"""Seconds to the end of a batch; all vCPUs are asked at once, so who stops the first has waited for all."""
_SAVE, _LOAD, _SIZE = 0.3e-3, 0.6e-3, 9727
_BOARD_SIZE = 521
"""The board takes no longer than what any config takes."""


def outlines(count: int, options: VcpuOptions) -> list[Outline]:
    """The outline of each vCPU, and of the board."""
    return [
        *(
            Outline(
                StateCosts(stop=0.0 if index else _STOP, save_config=_SAVE, load_config=_LOAD),
                config_size=_SIZE,
                config_lock="own",
                config_channel="multifd" if options.save == "each" else None,
            )
            for index in range(count)
        ),
        Outline(StateCosts(), config_size=_BOARD_SIZE),
    ]
