"""What holds while the machine stands still, and no longer."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from migpool.migration.states import State
from tests.support.rig import MODELS, Models, Scripted, contents, migrate


@pytest.mark.parametrize("failing", ["", "save_config", "load_config", "start"])
@pytest.mark.parametrize("models", MODELS[:2])
def test_no_garbage_is_collected_while_it_stands_still(tmp_path: Path, models: Models, failing: str) -> None:
    source, destination = Scripted(0, contents(9000, 1)), Scripted(0)
    collects: dict[str, bool] = {}
    calls = {source: ("save_setup", "quiesce", "stop", "save_config", "resume"), destination: ("load_config", "start")}
    for device, names in calls.items():
        for name in names:

            def note(name: str = name) -> None:
                collects[name] = gc.isenabled()

            device.before[name] = note
    if failing:
        (source if failing == "save_config" else destination).fail_in(failing)
    sent, _ = migrate(tmp_path, [source], [destination], models=models)
    assert (sent.outcome is State.COMPLETED) == (not failing)
    assert collects.pop("save_setup")
    assert "stop" in collects
    assert not any(collects.values()), collects
    assert gc.isenabled()
