"""``python -m tests.qemu.matrix``: does QEMU what ``migpool vmsd diff`` says? Exits with 1 if it does not.

With ``--write`` what came out is put in the docs, the streams of some pairs are kept for the tests, and the names of
subsections that releases know are written anew. Streams that are there already (build/qemu-matrix) are used again.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.qemu.matrix.known_subsections import table as known_subsections
from tests.qemu.matrix.loading import LIMIT, PROGRAMS, ROOT, Failed, load, stream_of
from tests.qemu.matrix.pairs import RELEASES, Pair, pairs
from tests.qemu.matrix.results import Result, judge, keep, table, write_page

_AT_ONCE: Final = 2
_AT_LEAST: Final = 120
_KNOWN: Final = ROOT / "migpool" / "vmsd" / "subsections.json"


def main(arguments: list[str]) -> int:
    """Run the matrix."""
    versions = {release: version(release) for release in RELEASES}
    print("; ".join(versions.values()))
    chosen = list(pairs())
    with ThreadPoolExecutor(_AT_ONCE) as executor:
        found = list(executor.map(run, chosen))
    results = [each for each in found if isinstance(each, Result)]
    wrong = [line for result in results for line in result.wrong]
    said = [*table(results), *(each for each in found if isinstance(each, str)), *wrong]
    print("\n".join([*said, *([] if wrong else ["no verdict is contradicted"])]))
    if "--write" in arguments:
        write_page(results, versions)
        keep(results)
        _KNOWN.write_text(known_subsections({release: program(release) for release in RELEASES}), "utf-8")
    if len(results) < _AT_LEAST:
        print(f"only {len(results)} pairs could be tried; {_AT_LEAST} are asked for")
    return 1 if wrong or len(results) < _AT_LEAST else 0


def run(pair: Pair) -> Result | str:
    """Judge a pair and have both machines load; or say why it is left out: a newer QEMU may not have such a machine."""
    try:
        ours, theirs = stream_of(pair.a), stream_of(pair.b)
        outcomes = load(ours, pair.b), load(theirs, pair.a)
    except Failed as failed:
        return f"left out: {pair.name}: {failed}"
    return Result(pair, (ours, theirs), judge((ours, theirs)), outcomes)


def version(release: str) -> str:
    """The program's version.

    Raises:
        Failed: it is another release.
    """
    command = [*PROGRAMS[release], "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True, cwd=ROOT).stdout
    found = re.search(r"version (\d+\.\d+)[\d.]*", said)
    # The newest is whatever the suite has by now.
    if found is None or (found[1] != release and release != RELEASES[-1]):
        raise Failed(f"{' '.join(command)} is not QEMU {release}: {said.strip()}")
    return f"QEMU {found[0].removeprefix('version ')}"


def program(release: str) -> Path:
    """Where a release's program is, as seen from here."""
    inside, name = PROGRAMS[release][0], PROGRAMS[release][-1]
    if inside == name:
        return Path(shutil.which(name) or name)
    return Path(inside.replace("/in-", "/"), "usr", "bin", name)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Failed, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"the matrix cannot be run: {error}; tests/qemu/matrix/setup brings what it needs")
