"""Threading models: one file each, found by the entry point group ``migpool.schedulers``; pyproject.toml lists ours.

What a third party's model needs stands here; the contract is in ``base.py``.
"""

from __future__ import annotations

from migpool.core.interpreter import Job
from migpool.schedulers.base import Scheduler, Setup, Staffing

__all__ = ["Job", "Scheduler", "Setup", "Staffing"]
