"""The pages of ``docs/reference`` are what their generator writes from the code as it is."""

from __future__ import annotations

import pytest

from migpool.core import effects
from migpool.scenario.schema import Scenario, Table
from tests.docs.reference import DIRECTORY, PAGES, attribute_docstrings, commands, keys_of, parameters


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_would_be_written(name: str) -> None:
    written = (DIRECTORY / name).read_text("utf-8")
    assert written == PAGES[name](), "write them anew: python -m tests.docs.reference"


def test_there_is_no_page_that_is_not_made() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(PAGES)


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
