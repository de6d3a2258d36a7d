"""Boots the guest once, shows what it says while it says it, and judges how it ended."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["LIMIT", "boot", "verdict", "watch"]

LIMIT: Final = {"kernel": 600.0, "nested": 2400.0}
"""Seconds that a suite's guest may take from its start to its end: an idle machine needs a minute, or five."""
_ENDED: Final = re.compile(rb"^guest: the tests ended with status (\d+) after", re.MULTILINE)
_COUNTED: Final = re.compile(rb"^=+ .*\b\d+ passed\b.* in [0-9.]+s.*=+$", re.MULTILINE)
_TROUBLE: Final = re.compile(rb"^.*(?:BUG:|WARNING:|Oops|Kernel panic|Call Trace|invoked oom-killer).*$", re.MULTILINE)
_KERNEL_LINE: Final = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check rdinit=/init"


def boot(files: Path, initramfs: Path, suite: str, arguments: Sequence[str] = ()) -> str:
    """Boot the guest and pass on what it prints.

    Arguments:
        suite: the directory whose tests are run, and their mark.
        arguments: pytest's besides.

    Returns:
        What is wrong, one line; empty if all tests have passed.
    """
    log = files / "kernel.log"
    memory = 1024 if suite == "kernel" else 3072
    command = [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory)),
        *("-nodefaults", "-display", "none", "-no-reboot", "-kernel", str(files / "vmlinuz")),
        *("-initrd", str(initramfs), "-append", " ".join((_KERNEL_LINE, "--", suite, *arguments))),
        *("-serial", f"file:{log}", "-serial", "stdio"),
    ]
    said, late = watch(command, LIMIT[suite])
    return verdict(said, log.read_bytes(), LIMIT[suite] if late else 0)


def watch(arguments: Sequence[str], limit: float) -> tuple[bytes, bool]:
    """Run a program to its end, and pass on what it prints.

    Returns:
        What it printed, and whether it had to be killed, since it did not end within ``limit`` seconds.
    """
    said = b""
    deadline = time.monotonic() + limit
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            said += data
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            return said, True
    return said, False


def verdict(said: bytes, kernel: bytes, late: float) -> str:
    """Say what is wrong with a run; empty if nothing is.

    Arguments:
        said: what the first process and the tests printed.
        kernel: what the guest's kernel printed.
        late: seconds after which the guest had to be ended; 0 if it ended by itself.
    """
    last = b" ".join(kernel.split(b"\n")[-4:]).decode(errors="replace").strip()
    if late:
        return f"the guest did not end within {late:g} s; its kernel's last words: {last or 'none'}"
    ended = _ENDED.search(said)
    if ended is None:
        return f"the guest ended before its tests did; its kernel's last words: {last or 'none'}"
    if trouble := _TROUBLE.search(kernel):
        return f"the guest's kernel complained: {trouble[0].decode(errors='replace').strip()}"
    if ended[1] != b"0":
        return f"tests in the guest failed: pytest ended with status {ended[1].decode()}"
    if _COUNTED.search(said) is None:
        return "no test has run in the guest"
    return ""
