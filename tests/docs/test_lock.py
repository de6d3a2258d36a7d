"""The lock has every dependency of the project's, at a version that the project allows, and with its hashes."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
LOCK = ROOT / "tests" / "dependencies" / "lock.txt"


def locked() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for entry in LOCK.read_text("utf-8").replace("\\\n", "").splitlines():
        text, *hashes = entry.split("--hash=")
        assert hashes, f"{text} has no hash"
        assert all(each.startswith("sha256:") for each in hashes)
        requirement = Requirement(text.strip())
        found.setdefault(requirement.name.lower().replace("_", "-"), []).append(requirement)
    return found


def test_every_dependency_is_locked_at_a_version_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]
    found = locked()
    for text in [*wanted, *project["build-system"]["requires"]]:
        wish = Requirement(text)
        if wish.name == "migpool":
            continue
        entries = found.get(wish.name.lower().replace(".", "-").replace("_", "-"), found.get(wish.name.lower(), []))
        assert entries, f"{wish.name} is not in the lock: make lock"
        for entry in entries:
            (version,) = (each.version for each in entry.specifier)
            assert wish.specifier.contains(version, prereleases=True), f"{entry} is not {wish}: make lock"
