"""What the documents for people who change migpool name is there: files, modules, names in them, targets, decisions."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest

from migpool.cli.app import Commands

ROOT = Path(__file__).parent.parent.parent
DECISIONS = ROOT / "docs" / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
NAMING = ["CONTRIBUTING.md", "README.md", "SECURITY.md", "benchmarks/README.md"]
NAMING += sorted(
    str(path.relative_to(ROOT))
    for where in ("*", "api/*", "tutorials/*")
    for path in (ROOT / "docs").glob(f"{where}.md")
)
NAMING += [str(path.relative_to(ROOT)) for path in (DECISIONS / "README.md", *RECORDS)]

IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"\.?\w[\w.*-]*(/[\w.*-]+)*/?")
SUFFIXES = (".py", ".md", ".toml", ".yaml", ".yml", ".in", ".js", ".css", ".json")
DOTTED = re.compile(r"(?:migpool|migpool_plugins|benchmarks)(?:\.\w+)+")
MADE = ("build/", ".venv/", ".benchmarks/", ".fuzz/", "my-device/", "my-model/")
"""What begins so is made by a target, or by a tutorial's commands, and not there in a bare clone."""


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def modules() -> list[Path]:
    return [path for package in ("migpool", "migpool_plugins") for path in (ROOT / package).rglob("*.py")]


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def in_backticks(text: str) -> list[str]:
    return IN_BACKTICKS.findall(without_blocks(text))


def is_path(word: str) -> bool:
    return bool(PATH.fullmatch(word)) and ("/" in word or word.endswith(SUFFIXES)) and not word.startswith(MADE)


def names_a_file(word: str) -> bool:
    return any(ROOT.glob(word.rstrip("/")))


def entry_point_groups() -> set[str]:
    """What packages announce their plug-ins under, which is named like a module and is none."""
    groups: dict[str, object] = tomllib.loads(read("pyproject.toml"))["project"]["entry-points"]
    return set(groups)


def resolve(name: str) -> None:
    """Raise if there is no such module, or no such name in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or "-"):
                raise
            continue
        break
    else:
        raise ModuleNotFoundError(name)
    for part in parts[length:]:
        # A field without a default is no attribute of its class.
        declared = getattr(found, "__annotations__", {})
        found = declared[part] if part in declared else getattr(found, part)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def glossary() -> dict[str, list[str]]:
    """The rows by their terms."""
    rows = [cells(line) for line in read("docs/glossary.md").splitlines() if line.startswith("| ")]
    terms = [row[0] for row in rows if row[0] != "term"]
    assert len(terms) == len(set(terms)), "a term stands there twice"
    return {row[0]: row for row in rows if row[0] != "term"}


@pytest.mark.parametrize("document", NAMING)
def test_every_path_and_every_dotted_name_is_there(document: str) -> None:
    words = in_backticks(read(document))
    missing = [word for word in words if is_path(word) and not names_a_file(word)]
    for word in words:
        if DOTTED.fullmatch(word) and word not in entry_point_groups():
            try:
                resolve(word)
            except (ImportError, AttributeError):
                missing.append(word)
    assert not missing


@pytest.mark.parametrize("document", [*NAMING, "README.md"])
def test_every_link_leads_to_a_file(document: str) -> None:
    at = (ROOT / document).parent
    for path, heading in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", read(document)):
        assert (at / path).exists(), path
        assert not heading or heading in headings(at / path), f"{path}#{heading}"


def docstrings(text: str) -> str:
    tree = ast.parse(text)
    named = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return "\n".join(ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, named))


def test_a_file_that_a_docstring_names_is_beside_it_or_has_its_whole_path() -> None:
    # In double backticks, or in a list of a package's files.
    named = re.compile(r"(?:``|^ {4}|[:;]  )([\w/]+\.py)(?:``|:?  )", re.MULTILINE)
    telling = [(path, text) for path in modules() if ".py" in (text := path.read_text("utf-8"))]
    found = [(path, name) for path, text in telling for name in named.findall(docstrings(text))]
    assert found
    assert [one for one in found if not (one[0].parent / one[1]).exists() and not (ROOT / one[1]).exists()] == []


def headings(path: Path) -> set[str]:
    """The headings of a document, as links name them."""
    lines = re.findall(r"^#+ (.*)", without_blocks(path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


def test_what_is_looked_for_would_be_missed() -> None:
    assert is_path("migpool/core/no_such.py")
    assert not names_a_file("migpool/core/no_such.py")
    assert not is_path("and so on")
    for wrong in ("migpool.core.no_such", "migpool.core.effects.NoSuch", "migpool.core.machine.Slot.no_such"):
        assert DOTTED.fullmatch(wrong)
        with pytest.raises((ImportError, AttributeError)):
            resolve(wrong)


@pytest.mark.parametrize("term", glossary())
def test_a_term_is_used_and_its_name_exists(term: str) -> None:
    names = in_backticks(glossary()[term][-1])
    assert names, "no name in the code"
    for name in names:
        resolve(name)
    # Inside of brackets or after "of" a term says which of two meanings it has.
    spoken = re.sub(r" (of|\().*", "", term).lower()
    assert spoken in used_words(), f"{spoken!r} stands in no document and in no module"


def used_words() -> str:
    if not _used:
        documents = [path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if path.name != "glossary.md"]
        _used.append(" ".join(" ".join(path.read_text("utf-8").split()) for path in [*documents, *modules()]).lower())
    return _used[0]


_used: list[str] = []


def test_contributing_tells_of_every_target() -> None:
    (listed,) = re.findall(r"^\.PHONY: (.*)", read("Makefile"), re.MULTILINE)
    told = set(re.findall(r"^\| `make ([\w-]+)[^`]*` \|", read("CONTRIBUTING.md"), re.MULTILINE))
    assert told == set(listed.split())


def test_every_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    for document in [*NAMING, "README.md", "docs/vfio.md", "benchmarks/README.md"]:
        text = read(document)
        blocks = "\n".join(re.findall(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE))
        named = re.findall(r"^\$ make ([a-z][\w-]*)", blocks, re.MULTILINE)
        named += [word.split()[1] for word in in_backticks(text) if re.match(r"make [a-z]", word)]
        assert not [name for name in named if name not in targets], document


def test_the_commands_that_contributing_shows_exist() -> None:
    text = read("CONTRIBUTING.md")
    named = set(re.findall(r"migpool ([a-z]+(?:-[a-z]+)*)(?= )", "\n".join(in_backticks(text)) + " "))
    known = set(Commands.targets)
    assert named
    assert named <= known


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem[:4])
def test_a_decision_has_its_form(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Context", "Decision", "Evidence", "Consequences"]
    assert 15 <= text.count("\n") <= 40
    number, title = re.findall(r"^# (\d+)\. (.+)", text)[0]
    assert path.name.startswith(f"{int(number):04}-")
    index = (DECISIONS / "README.md").read_text("utf-8")
    assert index.count(f"| [{number}. {title}]({path.name}) |") == 1


def test_the_decisions_are_numbered_without_a_gap() -> None:
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
    index = (DECISIONS / "README.md").read_text("utf-8")
    assert index.count("\n| [") == len(RECORDS)


def test_a_decision_that_the_code_names_is_there() -> None:
    titles = {path.read_text("utf-8").split("\n")[0].partition(". ")[2] for path in RECORDS}
    named = set()
    for path in modules():
        text = re.sub(r"\s*\n\s*(?:# )?", " ", path.read_text("utf-8"))
        named |= set(re.findall(r'the decision "([^"]+)"', text))
    assert named
    assert named <= titles
