"""Print constraints for pip that choose the oldest version of each dependency that pyproject.toml allows."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def oldest(requirements: list[str]) -> list[str]:
    """One constraint a requirement, each of which must be of the form ``name>=version``, perhaps with a marker."""
    found = []
    for requirement in requirements:
        name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:;.*)?", requirement).groups()  # type: ignore[union-attr]
        found.append(f"{name}=={version}")
    return found


if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    print("\n".join(oldest([*project["dependencies"], *extras["unicorn"], *extras["test"]])))  # noqa: T201
