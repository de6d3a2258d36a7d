#!/usr/bin/env python3
"""Print what an extra of pyproject.toml requires, with what the project itself does, one requirement a line.

$ tests/pythons/requirements.py test
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text("utf-8"))["project"]


def of(extra: str) -> Iterator[str]:
    """An extra's requirements, and those of the extras that it consists of."""
    for requirement in PROJECT["optional-dependencies"][extra]:
        if ours := re.fullmatch(rf"{PROJECT['name']}\[(.+)\]", requirement):
            for other in ours[1].split(","):
                yield from of(other)
        else:
            yield requirement


for requirement in (*PROJECT["dependencies"], *of(sys.argv[1])):
    sys.stdout.write(f"{requirement}\n")
