#!/usr/bin/env python3
"""Print the oldest version of every dependency that pyproject.toml allows, as constraints for pip.

$ mkdir -p build && tests/pythons/oldest.py > build/oldest.txt && PIP_CONSTRAINT=build/oldest.txt make test
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text("utf-8"))["project"]

for requirement in sorted({*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["unicorn"]}):
    if (found := re.fullmatch(r"([\w-]+)>=([\w.]+)(?:;.*)?", requirement.replace(" ", ""))) is None:
        sys.exit(f"not of the form NAME>=VERSION: {requirement}")
    sys.stdout.write(f"{found[1]}=={found[2]}\n")
