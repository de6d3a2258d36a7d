"""What several tests share: devices and peers that do as they are told, made streams and reports, commands to run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["DATA", "LONG", "PROFILE", "ROOT", "examples"]

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout: in ``PYTHONPATH`` or the working directory of a process that imports ``tests``."""
DATA: Final = ROOT / "tests" / "data"
PROFILE: Final = os.environ.get("TESTS_PROFILE", "short")
"""``short``; ``long``, as in CI; or ``search``, as long as that and with examples that are new in every run."""
LONG: Final = PROFILE != "short"
"""Whether properties get many examples, and what is repeated is repeated often."""


def examples(short: int, long: int) -> int:
    """How many examples a property gets that has a number of its own; ``TESTS_EXAMPLES`` overrides it."""
    return int(os.environ.get("TESTS_EXAMPLES", "0")) or (long if LONG else short)
