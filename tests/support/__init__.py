"""What several tests share: devices and peers that do as they are told, made streams and reports, commands to run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["DATA", "ROOT"]

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout: in ``PYTHONPATH`` or the working directory of a process that imports ``tests``."""
DATA: Final = ROOT / "tests" / "data"
