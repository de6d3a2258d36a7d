"""Print what the project and the example plug-in are built with, for the lock."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

for project in (ROOT, ROOT / "tests" / "example-plugin"):
    for requirement in tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]:
        sys.stdout.write(f"{requirement}\n")
# What hatchling asks for besides when it installs a project that is edited.
sys.stdout.write("editables>=0.5\n")
