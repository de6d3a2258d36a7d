"""What several tests share: devices and peers that do as they are told, made streams and reports, commands to run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["DATA", "LONG", "ROOT"]

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout: in ``PYTHONPATH`` or the working directory of a process that imports ``tests``."""
DATA: Final = ROOT / "tests" / "data"
LONG: Final = os.environ.get("TESTS_PROFILE", "short") == "long"
"""Whether properties get many examples, and what is repeated is repeated often: ``TESTS_PROFILE=long``, as in CI."""
