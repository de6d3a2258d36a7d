"""Blocks that are no commands are true as well: configuration is read, Python runs, JSON has its form, output comes.

``LOOKED_AT`` has a kind of block, and who looks at it. A block of another kind, or one that nobody looks at, fails.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest

from migpool.conformance import pytest_plugin
from migpool.lab.run.result import LabResult
from migpool.sweeps.form import load_sweep
from tests.core.test_architecture import bare
from tests.core.test_architecture import test_a_job_that_is_shown_is_the_one_that_runs as same_as_the_job
from tests.docs.blocks import BLOCKS, Block, block, blocks_of, of_kind
from tests.docs.console import STREAM, TINY, World
from tests.docs.test_reference import ALL as MADE_PAGES
from tests.support import ROOT
from tests.support.commandline import here
from tests.support.new_package import announce

LOOKED_AT: Final = {
    "console": "tests/docs/test_console_blocks.py types it",
    "python": "tests/docs/test_other_blocks.py runs it, tests/site/test_docs_slowly.py has its types checked",
    "toml": "tests/docs/test_other_blocks.py reads it",
    "json": "tests/docs/test_other_blocks.py reads it",
    "xml": "tests/docs/test_other_blocks.py reads it, tests/qemu/test_qemu_docs.py gives it to QEMU",
    "sql": "tests/site/test_docs_slowly.py runs it",
    "text": "tests/docs/test_other_blocks.py, by its page",
    "mermaid": "the site's build draws it, and fails where it cannot: tests/site/test_strict.py",
    "{eval-rst}": "the site's build, which fails for a name that is not there: tests/site/test_strict.py",
}
IN_DOCS_TARGET: Final = {"docs/sweeps.md": "needs pandas: tests/site/test_docs_slowly.py runs it"}
NOT_HERE: Final = {
    'device = "0000:01:00.2"': "there is no device 0000:01:00.2",  # make kernel has such devices
    'idstr = "0000:00:03.0/vfio"': "vm.mig has no such VFIO device",  # make nested has such machines
}
"""What a scenario names that no machine of tests has, and what is said then: once everything else of it is right."""
LAYOUTS: Final = {
    "docs/wire.md": "drawings of bytes, of which tests/wire and tests/migration have the bytes themselves"
}


def ids(block: Block) -> str:
    return str(block)


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_somebody_looks_at_every_block(block: Block) -> None:
    assert block.kind in LOOKED_AT, f"{block}: nobody knows what a block of kind {block.kind!r} is"
    for place in re.findall(r"tests/[\w/.]+", LOOKED_AT[block.kind]):
        assert (ROOT / place).exists(), place


def test_a_block_that_never_ends_or_is_of_no_kind_is_found() -> None:
    with pytest.raises(ValueError, match="this block never ends"):
        blocks_of("page.md", "a\n```toml\nb\n")
    (found,) = blocks_of("page.md", "````text\n```toml\n````\n")
    assert (found.kind, found.text) == ("text", "```toml\n")
    assert [one.kind for one in blocks_of("page.md", "~~~\na\n~~~\n")] == [""]


# ---------------------------------------------------------------- Python


@pytest.mark.parametrize("block", of_kind("python"), ids=ids)
def test_python_runs_or_is_the_code_itself(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if block.page in IN_DOCS_TARGET:
        pytest.skip(IN_DOCS_TARGET[block.page])
    shown = re.match(r"def (\w+)", block.text)
    if block.page == "docs/architecture.md":
        assert shown
        same_as_the_job(block.text, shown[1])
        return
    monkeypatch.chdir(tmp_path)
    for name in ("vm.mig", "old.mig", "new.mig"):
        shutil.copy(STREAM, name)
    names = {"__name__": "__main__", "work": lambda _: None, "item": 7}
    exec(compile(block.text, block.page, "exec", dont_inherit=True), names)
    assert "Traceback" not in capsys.readouterr().err


def package_of_a_model(path: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.chdir(path)
    ended = here("new-model", "my-model")
    assert ended.code == 0, ended.err
    return path / "my-model"


def test_the_model_that_is_shown_is_the_one_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = (package_of_a_model(tmp_path, monkeypatch) / "src" / "my_model" / "__init__.py").read_text()
    shown = block("docs/threading-models.md", "python")
    assert bare(shown[shown.index("class ") :]) == bare(written[written.index("\nclass ") :])


# ---------------------------------------------------------------- TOML


def within(part: Any, whole: Any) -> bool:
    """Whether one table stands in another."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    return bool(part == whole)


def completed(text: str) -> str:
    """A scenario of what is shown of one."""
    table = tomllib.loads(text)
    if list(table) == ["options"]:
        text = f'[[devices]]\nplugin = "vfio"\n{text}'
    elif "devices" not in table:
        text = f"[[devices]]\n{TINY}\n{text}"
    return text if "name" in table else f'name = "shown"\n{text}'


@pytest.mark.parametrize("block", of_kind("toml"), ids=ids)
def test_toml_is_read_for_what_it_is(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tomllib.loads(block.text)
    if "tool" in table or "project" in table:
        written = tomllib.loads((package_of_a_model(tmp_path, monkeypatch) / "pyproject.toml").read_text())
        mine = block.page == "docs/threading-models.md"
        # A device's package: typed by the console block beneath it, which finds the plug-in by this table.
        assert within(table, written) if mine else "migpool.devices" in table["project"]["entry-points"]
        return
    with ExitStack() as stack:
        world = World(block.page, tmp_path, monkeypatch, stack)
        path = tmp_path / "shown.toml"
        if "axes" in table:
            path.write_text(block.text)
            assert load_sweep(path).file.axes
            return
        path.write_text(world.where(completed(block.text)))
        for socket in sorted(set(re.findall(r'"(/(?:tmp|run)/[^"]*)"', block.text))):
            world.type(["migpool", "vfio", "serve", "tiny", "--socket", socket, "-n", str(devices_of(block.text))])
        ended = here("scenario", "check", str(path))
        missing = [said for shown, said in NOT_HERE.items() if shown in block.text]
        assert ended.code == (2 if missing else 0), ended.err
        assert all(said in ended.err for said in missing[-1:])


def devices_of(text: str) -> int:
    """How many devices a fragment makes of its last entry."""
    return int(tomllib.loads(text).get("devices", [{}])[-1].get("count", 1))


def test_a_key_that_there_is_not_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(completed('[link]\nrat = "1Gbit/s"\n'))
    assert "rat" in here("scenario", "check", str(path)).err


def test_options_of_the_kits_tests_are_those_that_there_are() -> None:
    (words,) = re.findall(r'addopts = "(.*)"', "".join(one.text for one in of_kind("toml")))
    assert f'"{words.split()[0]}"' in Path(str(pytest_plugin.__file__)).read_text("utf-8")


# ---------------------------------------------------------------- JSON, XML, text


@pytest.mark.parametrize("block", of_kind("json"), ids=ids)
def test_json_has_the_form_that_it_is_shown_for(block: Block) -> None:
    if block.page == "docs/results.md":
        assert LabResult.model_validate_json(block.text).runs
    else:
        # A command for QEMU's monitor, which make qemu gives to one.
        assert set(json.loads(block.text)) == {"execute", "arguments"}


@pytest.mark.parametrize("block", of_kind("xml"), ids=ids)
def test_xml_is_well_formed_and_has_arguments_for_qemu(block: Block) -> None:
    tree = ElementTree.fromstring(
        f"<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>{block.text}</domain>"
    )
    assert [each.attrib["value"] for each in tree.iter() if each.tag.endswith("}arg")][::2] == ["-msg", "-D", "-qmp"]


@pytest.mark.parametrize("block", of_kind("text"), ids=ids)
def test_text_is_what_comes(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.page in LAYOUTS:
        return
    if block.page == "docs/reference/public.md":
        assert "reference/public.md" in MADE_PAGES  # compared with the code, as a whole
        return
    assert block.page == "docs/threading-models.md", f"{block}: what prints that?"
    package = package_of_a_model(tmp_path, monkeypatch)
    source = package / "src" / "my_model" / "__init__.py"
    source.write_text(source.read_text().replace("accept(job):", 'accept(job) and job.slot.name != "device-2":'))
    announce(package)
    monkeypatch.syspath_prepend(package / "src")
    ended = here("conformance", "--model", "my-model", extra={"PYTHONPATH": str(package / "src"), "COLUMNS": "300"})
    assert ended.code == 1
    assert masked(block.text) in masked(ended.out)


def masked(text: str) -> str:
    """Words alone: times are other ones each time."""
    return " ".join(re.sub(r"\d+\.\d+ s\b", "N s", text).split())
