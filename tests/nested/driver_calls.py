"""What the driver is asked to do, and when, whoever asks: by the kernel's own probes on its functions.

Every write of state and every change of state leaves an event with the kernel's monotonic time and the asking thread.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Call", "calls", "probed"]

TRACING: Final = Path("/sys/kernel/tracing")
PROBES: Final = {
    "write": "p:mig/write mtty_resume_write file=$arg1:x64 size=$arg3:u64",
    "written": "r:mig/written mtty_resume_write size=$retval:s64",
    "set_state": "p:mig/set_state mtty_set_state device=$arg1:x64 state=$arg2:u32",
}
_EVENT: Final = re.compile(r"-(?P<thread>\d+)\s+\[\d+\].*?\s(?P<time>\d+\.\d+): (?P<what>\w+): \(.*?\)(?P<said>.*)$")
_ARGUMENT: Final = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True)
class Call:
    """One event.

    Arguments:
        time: seconds since the guest's start.
        thread: which asked.
        what: a key of ``PROBES``.
        said: its arguments.
    """

    time: float
    thread: int
    what: str
    said: dict[str, str]


def _mounted() -> None:
    if not (TRACING / "kprobe_events").exists():
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(b"tracefs", str(TRACING).encode(), b"tracefs", 0, None) == 0, ctypes.get_errno()


@contextmanager
def probed() -> Iterator[None]:
    """Have the kernel note the driver's calls meanwhile, in a log that is empty at first."""
    _mounted()
    (TRACING / "events/enable").write_text("0")
    (TRACING / "kprobe_events").write_text("\n".join(PROBES.values()) + "\n")
    (TRACING / "trace_clock").write_text("mono")
    (TRACING / "buffer_size_kb").write_text("1024")
    (TRACING / "trace").write_text("")
    (TRACING / "events/mig/enable").write_text("1")
    try:
        yield
    finally:
        (TRACING / "events/mig/enable").write_text("0")
        (TRACING / "kprobe_events").write_text("")


def calls() -> list[Call]:
    """What has been noted so far, in order."""
    found = (_EVENT.search(line) for line in (TRACING / "trace").read_text().splitlines())
    return [
        Call(float(one["time"]), int(one["thread"]), one["what"], dict(_ARGUMENT.findall(one["said"])))
        for one in found
        if one is not None
    ]
