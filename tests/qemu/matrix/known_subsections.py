"""Which subsections each release of QEMU knows, by the names in the program.

Only those that depend on the state of a device, as a CPU's registers that are not zero. One that depends on how a
machine is configured (``timer/icount``, ``ich9_pm/tco``) is of no use: a machine configured otherwise does not load it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_OWNERS: Final = (
    "cpu|cpu_common|serial|pckbd|ps2kbd|fdc|fdrive|ide_drive|ide bmdma|ide_bus|SCSIDevice|usb-hub|usb-redir-ep"
    "|sd-card|sdhci|ohci-core|PIIX3|rtl8139|mc146818rtc|vmxnet3"
)
_SINGLE: Final = (
    "apic_sipi|ICH9LPC/rst_cnt|ide bmdma_current|ich9_pm/cpuhp|piix4_pm/cpuhp|e1000/full_mac_state|fw_cfg/dma"
)
"""The last four depend on the configuration; the matrix shows that machines without load them all the same."""
_NAMES: Final = re.compile(rf"(?<=\0)(?:(?:{_OWNERS})/[\w./-]+|{_SINGLE})(?=\0)".encode())
_CONFIGURED: Final = re.compile(r"cpu/(.*nested_state.*|msr_hyperv.*|.*xen.*|tsc_khz|intel_sgx)|.*\.(c|h|inc)")


def known(program: bytes) -> frozenset[str]:
    """The subsections that a program knows, by its bytes."""
    names = {found[0].decode() for found in _NAMES.finditer(program)}
    return frozenset(name for name in names if not _CONFIGURED.fullmatch(name))


def table(programs: Mapping[str, Path]) -> str:
    """The file that migpool reads: under each release what it and all later ones know, and no earlier one.

    Arguments:
        programs: where each release's program is, from the oldest on.
    """
    sets = {release: known(program.read_bytes()) for release, program in programs.items()}
    order = list(sets)
    rows: dict[str, list[str]] = {}
    taken: set[str] = set()
    for at, release in enumerate(order):
        names = frozenset.intersection(*(sets[later] for later in order[at:])) - taken
        taken |= names
        rows[release] = sorted(names)
    return json.dumps(rows, indent=1) + "\n"
