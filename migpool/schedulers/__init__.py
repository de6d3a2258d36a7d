"""Threading models: one file each, found by the entry point group ``migpool.schedulers``."""

from __future__ import annotations

from migpool.schedulers.base import Scheduler, Setup

__all__ = ["Scheduler", "Setup"]
