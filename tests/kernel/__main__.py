"""``python -m tests.kernel``: boots Linux in QEMU and runs the tests of this directory there, on the driver mtty.

``python -m tests.kernel nested [WHAT ...]``: those of tests/nested instead, for which the guest has QEMU, too. What
follows goes to pytest.

MIGPOOL_KERNEL=iommufd in the environment takes the kernel of tests/kernel/setup-iommufd instead of Debian's own.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.kernel.initramfs import build
from tests.kernel.machine import boot

KERNEL = os.environ.get("MIGPOOL_KERNEL", "kernel")
SETUP = "tests/kernel/setup" if KERNEL == "kernel" else f"tests/kernel/setup-{KERNEL}"
FILES = Path(__file__).parents[2] / "build" / KERNEL


def main() -> int:
    if not (FILES / "stamp").exists():
        print(f"no kernel in {FILES}: {SETUP} brings it", file=sys.stderr)
        return 1
    suite, *more = sys.argv[1:] or ["kernel"]
    began = time.monotonic()
    initramfs = build(FILES, qemu=suite == "nested")
    print(f"the guest is {initramfs.stat().st_size >> 20} MiB, made in {time.monotonic() - began:.1f} s", flush=True)
    wrong = boot(FILES, initramfs, suite, more)
    if wrong:
        print(f"{suite}: {wrong}; see {FILES / 'kernel.log'}", file=sys.stderr)
    return 1 if wrong else 0


sys.exit(main())
