"""What a figure can depend on: the machine, the system, the versions."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from benchmarks.datapath.compiled import compiler

__all__ = ["machine_facts"]

CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"


def machine_facts() -> dict[str, str]:
    """Names and values, as text."""
    return {
        "CPU": f"{os.cpu_count()} x {_cpu_model()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB",
        "kernel": platform.release(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": _first_line([compiler(), "--version"]),
        "TCP congestion control": f"cubic for the benchmark (the system's: {_text(CONGESTION)})",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu_model() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _text(path: str) -> str:
    try:
        return Path(path).read_text("ascii", "replace").strip()
    except OSError:
        return "unknown"


def _first_line(command: list[str]) -> str:
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return output.partition("\n")[0] or "unknown"
