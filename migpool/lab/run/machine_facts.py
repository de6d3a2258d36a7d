"""Where a run was made: what its figures depend on besides migpool."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from migpool.lab.run.result import MachineFacts


def machine_facts() -> MachineFacts:
    """Where this runs."""
    return MachineFacts(
        # A distributor's suffix names a build, not what the measurements depend on.
        system=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        cpus=len(os.sched_getaffinity(0)),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        migpool=version("migpool"),
    )
