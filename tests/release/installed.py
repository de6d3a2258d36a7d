"""Tries what was installed, with nothing of this checkout and no other package: ``tests/release/check`` runs it so.

Run by the Python of the environment in question, isolated (``-I``): what is imported is what was installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path

BIN = Path(sys.executable).parent
LIMIT = 180
SHARED = (
    "man/man1/migpool.1",
    "bash-completion/completions/migpool",
    "zsh/site-functions/_migpool",
    "fish/vendor_completions.d/migpool.fish",
)


def run(*words: str) -> str:
    """What a command of the environment prints; it must end well, and with nothing on the search path but its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MIGPOOL"))}
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**environment, "PATH": f"{BIN}:{environment['PATH']}"},
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def missing_files() -> list[str]:
    """What is to be in the packages, line by line in the file that is named, and is not in the installation."""
    there = {str(file) for file in distribution("migpool").files or ()}
    return sorted(set(Path(sys.argv[1]).read_text("utf-8").split()) - there)


def main() -> None:
    spec = find_spec("migpool")
    if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(Path(sys.prefix).resolve()):
        sys.exit(f"not what was installed is tried, but {spec and spec.origin}")
    if missing := missing_files():
        sys.exit(f"not in the distribution: {', '.join(missing)}")
    if absent := [name for name in SHARED if not Path(sys.prefix, "share", name).is_file()]:
        sys.exit(f"not in {sys.prefix}/share: {', '.join(absent)}")
    if run("migpool", "--version") != f"migpool {version('migpool')}\n":
        sys.exit("--version says another version than the distribution")
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        run("migpool", "compare", "small", "--models", "inline,pool", "--json", "result.json")
        if {one["outcome"] for one in json.loads(Path("result.json").read_text())["runs"]} != {"completed"}:
            sys.exit("a run of compare did not complete")
        if not Path("migpool-report.html").read_text().rstrip().endswith("</html>"):
            sys.exit("the report is not whole")
        run("migpool", "plugins")
        run("migpool", "lab", "show", "C1")
        run("migpool", "snapshot", "save", "machine.mig", "--scenario", "small")
        run("migpool", "inspect", "machine.mig")
        run("migpool", "new-device", "made-device")
        run("python", "-m", "pip", "install", "--quiet", "--no-deps", "./made-device")
        run("migpool", "conformance", "made-device", "--models", "inline")
        run("python", "-m", "pip", "check")


if __name__ == "__main__":
    main()
