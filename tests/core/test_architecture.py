"""What docs/architecture.md says of the jobs and of the spans is what the code does."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from migpool.core import jobs

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()


class _Bare(ast.NodeTransformer):
    """Leaves types and docstrings out."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        node.body = node.body[1:] if ast.get_docstring(node) else node.body
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return None if node.value is None else ast.Assign([node.target], node.value, lineno=node.lineno)


def bare(source: str) -> str:
    return ast.unparse(_Bare().visit(ast.parse(source)))


SHOWN = re.findall(r"```python\n(def (\w+).*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("source", "name"), SHOWN, ids=[name for _, name in SHOWN])
def test_a_job_that_is_shown_is_the_one_that_runs(source: str, name: str) -> None:
    assert bare(source) == bare(inspect.getsource(getattr(jobs, name)))


def test_jobs_are_shown() -> None:
    assert {name for _, name in SHOWN} >= {"save_state", "save_pages"}


def kinds_recorded(tree: ast.AST) -> Iterator[str]:
    """The kinds of wait of which spans are made, as written: by ``pack_span`` or by a tracer's ``record``.

    One that was looked up before a loop counts as what it is.
    """
    nodes = list(ast.walk(tree))
    known = {
        ast.unparse(node.targets[0]): ast.unparse(node.value)
        for node in nodes
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("Wait.")
    }
    for node in nodes:
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            kind = node.args[0]
            if called == "pack_span" or (called == "record" and len(node.args) > 1):
                written = map(ast.unparse, (kind.body, kind.orelse) if isinstance(kind, ast.IfExp) else (kind,))
                yield from (known.get(one, one) for one in written)


def test_spans_come_from_the_interpreter_and_from_the_places_that_are_named_with_a_reason() -> None:
    found: dict[str, set[str]] = {}
    for package in ("migpool", "migpool_plugins"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            if path.name == "trace.py" or not re.search(r"\brecord\(|\bpack_span\(", text):
                continue
            if kinds := set(kinds_recorded(ast.parse(text))):
                found[path.relative_to(ROOT).as_posix()] = kinds
    assert found.pop("migpool/core/interpreter.py") == {
        "effect.wait",
        "Wait.QUEUED",
        "Wait.LOCK",
        "Wait.OWN_LOCK",
    }
    table = TEXT.partition("### Spans that no effect leaves")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines() if row.startswith("| `")]
    named: dict[str, set[str]] = {}
    for kind, files, reason in rows:
        assert reason
        for file in re.findall(r"`([\w/]+\.py)`", files):
            named.setdefault(file, set()).add(f"Wait.{kind.strip('`')}")
    assert found == named


def test_the_floors_that_are_drawn_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["migpool"]]
    drawing = TEXT.partition("## Rooms")[2].partition("```mermaid")[2].partition("```")[0]
    drawn = re.findall(r'(f\d+)\["(.*)"\](?: --> (f\d+))?', drawing)
    assert [room for _, room, _ in drawn] == layers
    assert [below for _, _, below in drawn] == [*[name for name, _, _ in drawn][1:], ""]
