"""Records the trace logs of the gallery anew: ``python -m tests.qemu.record_traces [NAME...]``, as root or not.

Two QEMUs on this host migrate each machine a few times; the logs of the shortest downtime are kept, since a busy host
only lengthens it, with the lines of those events that ``migpool explain`` reads, packed by xz. It needs a QEMU, as
``tests/qemu/setup`` brings it, and a quiet machine.
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from migpool.lab.qemu.explain import explain
from migpool.lab.qemu.lines import Counts, read_lines
from migpool.lab.qemu.tracepoints import FORMS
from migpool.lab.qemu.tracing import ALL
from tests.qemu.traced_pair import BUSY, NOTHING, PLAIN, WRITTEN, Pair

KEPT: Final = Path(__file__).parents[1] / "data" / "qemu-traces"
TRIES: Final = 4
PAIRS: Final = {
    "idle": Pair((*PLAIN, "-device", "virtio-net-pci,romfile=", "-device", "qemu-xhci"), channels=2, until=NOTHING),
    "e1000e-16-views": Pair((*PLAIN, *("-device", "e1000e,romfile=") * 16), channels=2, tracepoints=ALL, until=NOTHING),
    "busy": Pair(BUSY, channels=2, parameters={"max-bandwidth": 400 << 20, "downtime-limit": 700}, until=WRITTEN),
}


def main(names: Sequence[str]) -> None:
    for name in names or PAIRS:
        with tempfile.TemporaryDirectory() as directory:
            tried = []
            for number in range(TRIES):
                (where := Path(directory, str(number))).mkdir()
                source, destination, _ = PAIRS[name].migrate(where)
                downtime = explain(source, destination).result.runs[0].downtime_ms or 0.0
                tried.append((downtime, (source, destination)))
                sys.stderr.write(f"{name}: {downtime:.1f} ms\n")
            for log in min(tried)[1]:
                (KEPT / name).mkdir(exist_ok=True)
                (KEPT / name / f"{log.name}.xz").write_bytes(lzma.compress(kept(log), preset=9))


def kept(log: Path) -> bytes:
    """The lines of the events that are read."""
    known = {line.event for line in read_lines(log, frozenset(FORMS), Counts())}
    lines = log.read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if any(f"{event} ".encode() in line for event in known))


if __name__ == "__main__":
    main(sys.argv[1:])
