#!/usr/bin/env python3
"""Print the oldest version of every dependency that pyproject.toml allows, as constraints for pip.

    mkdir -p build && tests/pythons/oldest.py > build/oldest.txt && PIP_CONSTRAINT=build/oldest.txt make test
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text("utf-8"))["project"]

for requirement in sorted({*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["unicorn"]}):
    name, version = re.fullmatch(r"([\w-]+)>=([\w.]+)(?:;.*)?", requirement.replace(" ", "")).groups()
    sys.stdout.write(f"{name}=={version}\n")
