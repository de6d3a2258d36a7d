"""Asks the index's advisory database about every locked dependency: ``python tests/dependencies/audit.py``.

It is pip-audit that asks. The exit code is 1 if something is known of one of them, and also if the database does not
answer: a package of which it says nothing has not been looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

LOCK: Final = Path(__file__).with_name("lock.txt")
LIMIT: Final = 600.0


def main() -> int:
    """Ask, and say what was answered, a line for each finding."""
    options = ["--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json", f"--requirement={LOCK}"]
    ended = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    try:
        found = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        return _say(f"the database cannot be asked: {lines[-1] if lines else 'no answer'}")
    unknown = [each["name"] for each in found if "skip_reason" in each]
    if unknown:
        more = f" and {len(unknown) - 1} others" if unknown[1:] else ""
        return _say(f"of {len(found)} packages the database does not answer for {unknown[0]}{more}: not audited")
    known = [(each, flaw) for each in found for flaw in each["vulns"]]
    for each, flaw in known:
        mended = ", ".join(flaw["fix_versions"]) or "no version"
        _say(f"{each['name']} {each['version']}: {flaw['id']}, mended in {mended}: raise it, then make lock")
    if not known:
        print(f"audit: nothing is known of {len(found)} packages")  # noqa: T201
    return int(bool(known))


def _say(line: str) -> int:
    print(f"audit: {line}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
