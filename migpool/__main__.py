"""``python -m migpool`` is ``migpool``."""

from __future__ import annotations

import sys

try:
    from migpool.cli import main
except KeyboardInterrupt:
    sys.exit(130)

main()
