"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from migpool import PoolFull, WorkerPool
from migpool.device import DeviceContext
from tests.support.rig import migrate

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(word: str) -> str:
    (found,) = [code for code in BLOCKS if word in code]
    return str(found)


def test_the_plugin_migrates(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(block("class Clock"), "README.md", "exec"), names)
    make = names["devices"]
    assert callable(make)
    source, destination = make(DeviceContext("source")), make(DeviceContext("destination"))
    sent, _ = migrate(tmp_path, source, destination)
    assert sent.error == ""
    assert destination[0].ticks == 1234


def test_the_pool_says_full() -> None:
    calls: list[object] = []
    code = block("WorkerPool")
    exec(compile(code, "README.md", "exec"), {"work": calls.append, "item": 7})
    assert calls == [7, 7, 7]
    assert "PoolFull" in code
    with WorkerPool(1, max_pending=0) as pool:
        gate = threading.Event()
        pool.submit(gate.wait, 10)
        with pytest.raises(PoolFull):
            pool.try_submit(gate.wait, 10)
        gate.set()


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w./-]+)\)", README))
def test_what_it_points_to_is_there(path: str) -> None:
    assert (Path(__file__).parent.parent / path).exists()
