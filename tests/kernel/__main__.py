"""``python tests/kernel``: boots Linux in QEMU and runs the tests of this directory there, on the driver mtty."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.kernel.initramfs import build
from tests.kernel.machine import boot

FILES = Path(__file__).parents[2] / "build" / "kernel"


def main() -> int:
    if not (FILES / "stamp").exists():
        print(f"no kernel in {FILES}: tests/kernel/setup brings it", file=sys.stderr)
        return 1
    began = time.monotonic()
    initramfs = build(FILES)
    print(f"the guest is {initramfs.stat().st_size >> 20} MiB, made in {time.monotonic() - began:.1f} s", flush=True)
    wrong = boot(FILES, initramfs)
    if wrong:
        print(f"kernel: {wrong}; see {FILES / 'kernel.log'}", file=sys.stderr)
    return 1 if wrong else 0


sys.exit(main())
