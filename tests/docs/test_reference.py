"""The pages of ``docs/reference`` are what their generator writes from the code as it is."""

from __future__ import annotations

import pytest

from migpool.core import effects
from migpool.scenario.schema import Scenario, Table
from tests.docs.manual import manual
from tests.docs.public import PUBLIC, public_page, refused
from tests.docs.reference import DIRECTORY, PAGES, attribute_docstrings, commands, keys_of, option_words, parameters

MACROS = {".TH", ".SH", ".SS", ".PP", ".TP", ".B", '.\\"'}


ALL = {**PAGES, PUBLIC: public_page, "shell/migpool.1": manual}


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_what_would_be_written(name: str) -> None:
    written = (DIRECTORY / name).read_text("utf-8")
    assert written == ALL[name](), "write them anew: python -m tests.docs.reference"


def test_there_is_no_page_that_is_not_made() -> None:
    assert {f"reference/{path.name}" for path in (DIRECTORY / "reference").iterdir()} == {*PAGES, PUBLIC}


def test_what_is_public_changes_with_the_version_alone() -> None:
    def of(version: str, *names: str) -> str:
        return "\n".join([f"Of version {version}. What stands here", *names])

    assert refused(of("0.2.0", "a", "b"), of("0.2.0", "a", "b")) == ""
    assert refused(of("0.2.0", "a", "b"), of("0.3.0.dev0", "a")) == ""
    assert refused(of("0.3.0.dev0", "a"), of("0.3.0.dev0", "c")) == ""
    for now in (of("0.2.0", "a"), of("0.2.0", "a", "b", "c"), of("0.2.0", "a", "b()")):
        assert refused(of("0.2.0", "a", "b"), now).startswith("0.2.0 is released, and what is public has changed: ")


def test_nothing_in_the_manual_is_taken_for_what_it_is_not() -> None:
    page = manual()
    assert {line.split()[0] for line in page.splitlines() if line[0] in ".'"} <= MACROS
    assert "[cyan]" not in page
    assert "`" not in page
    for name, function in commands():
        assert f"\n.SS migpool {name}\n" in page
        for word in option_words(function):
            assert word.replace("-", r"\-") in page, f"{name} {word}"


def test_every_key_kind_of_wait_and_option_says_what_it_is() -> None:
    models: list[type[Table]] = [Scenario]
    models += [table for table in map(keys_of, Scenario.model_fields) if table is not None]
    for model in models:
        keys = {key for key in model.model_fields if model is not Scenario or keys_of(key) is None}
        assert keys <= attribute_docstrings(model).keys()
    assert {wait.name for wait in effects.Wait} <= attribute_docstrings(effects.Wait).keys()
    for name, function in commands():
        assert function.__doc__, name
        assert [told for _, told, _ in parameters(function) if not told.help] == [], name
