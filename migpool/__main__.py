"""``python -m migpool`` is ``migpool``."""

from __future__ import annotations

from migpool.cli import main

main()
