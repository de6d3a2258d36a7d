"""The hosted CI, the CI of a bare machine and the hooks before a commit run the same targets and commands."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
MAKE = re.compile(r"^\s*make ([a-z][\w-]*)", re.MULTILINE)
EXPRESSION = re.compile(r"\$\{\{ matrix\.(\w+) \}\}")


def makefile() -> str:
    return (ROOT / "Makefile").read_text("utf-8")


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", makefile(), re.MULTILINE))


def of_the_bare_machine() -> set[str]:
    return set(MAKE.findall((ROOT / ".ci" / "run").read_text("utf-8")))


def filled(command: str, chosen: dict[str, object]) -> str:
    for key, value in chosen.items():
        command = command.replace(f"${{{{ matrix.{key} }}}}", str(value))
    return command


class Workflow:
    """The workflow file, read as what it is."""

    def __init__(self) -> None:
        text = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
        # In YAML 1.1 the key "on" is a truth value.
        self.top = {str(key): value for key, value in yaml.safe_load(text).items()}

    def jobs(self) -> dict[str, dict[str, object]]:
        return dict(self.top["jobs"])

    def steps(self) -> Iterator[dict[str, object]]:
        for job in self.jobs().values():
            steps = job["steps"]
            assert isinstance(steps, list)
            yield from steps

    def commands(self) -> Iterator[str]:
        """Every ``run``, with each value of the matrix in its place."""
        for job in self.jobs().values():
            steps, strategy = job["steps"], job["strategy"]
            assert isinstance(steps, list)
            assert isinstance(strategy, dict)
            for step in steps:
                command = str(step.get("run", ""))
                keys = list(dict.fromkeys(EXPRESSION.findall(command)))
                for values in itertools.product(*(strategy["matrix"][key] for key in keys)):
                    chosen = dict(zip(keys, values, strict=True))
                    yield filled(command, chosen)

    def targets(self) -> set[str]:
        return {name for command in self.commands() for name in MAKE.findall(command)}


def test_every_target_that_the_workflow_runs_exists() -> None:
    assert Workflow().targets()
    assert Workflow().targets() <= targets()


def test_the_workflow_runs_what_a_bare_machine_runs() -> None:
    assert of_the_bare_machine()
    assert of_the_bare_machine() <= Workflow().targets()


def test_the_workflow_runs_the_tests_on_every_python_that_is_announced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    announced = {name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    matrix = Workflow().jobs()["test"]["strategy"]["matrix"]  # type: ignore[index]
    assert announced <= set(matrix["python"])
    oldest = project["requires-python"].removeprefix(">=")
    assert {"python": oldest, "dependencies": "oldest"} in matrix["include"]


def test_the_workflow_may_only_read_and_ends_what_is_out_of_date() -> None:
    workflow = Workflow()
    assert workflow.top["permissions"] == {"contents": "read"}
    assert workflow.top["concurrency"]["cancel-in-progress"] is True
    assert all("permissions" not in job for job in workflow.jobs().values())
    assert all(job.get("timeout-minutes") for job in workflow.jobs().values())


def test_actions_are_pinned_by_their_major_version_and_keep_no_credentials() -> None:
    used = [step for step in Workflow().steps() if "uses" in step]
    assert used
    for step in used:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", str(step["uses"])), step
        if "checkout" in str(step["uses"]):
            assert step["with"] == {"persist-credentials": False}


def test_the_hooks_before_a_commit_are_the_commands_of_lint() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    repositories = yaml.safe_load(text)["repos"]
    assert [one["repo"] for one in repositories] == ["local"], "a hook from elsewhere would have to be fetched"
    hooks = repositories[0]["hooks"]
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in hooks)
    (linters,) = re.findall(r"^LINTERS := (.*)", makefile(), re.MULTILINE)
    assert re.findall(r"^([\w-]+):.*\n\t.*\$\(LINTERS\)$", makefile(), re.MULTILINE) == ["lint", "test"]
    recipes = dict(re.findall(r"^(lint-\w+):.*\n\t(.*)\n", makefile(), re.MULTILINE))
    assert recipes
    assert recipes.keys() == set(linters.split())
    linted = {recipe.replace("$(BIN)", ".venv/bin") for recipe in recipes.values()}
    assert linted == {hook["entry"] for hook in hooks}


def test_the_oldest_dependencies_are_those_of_the_project() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tests" / "pythons" / "oldest.py"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = made.stdout.splitlines()
    for requirement in project["dependencies"]:
        assert requirement.replace(">=", "==") in lines
    assert any(line.startswith("unicorn==") for line in lines)
