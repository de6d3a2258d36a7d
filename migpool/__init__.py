"""migpool: the device state of a live migration, moved under a threading model of your choice."""

from __future__ import annotations

__version__ = "0.1.0"
