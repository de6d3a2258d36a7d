"""A scenario's machine: made by plug-ins, and unmade when one of them fails."""

from __future__ import annotations

import pytest

from migpool.device import Device, DeviceContext, DeviceError, DevicePlugin
from migpool.errors import MigpoolError, PluginError, ScenarioError, UsageError
from migpool.scenario import build
from migpool.scenario.build import build_machine
from migpool.scenario.schema import Scenario, parse_scenario


class Noted(Device):
    def __init__(self, number: int, closed: list[int]) -> None:
        self.idstr = f"noted-{number}"
        self._number = number
        self._closed = closed

    def save_config(self) -> bytes:
        return b""

    def load_config(self, data: bytes) -> None: ...

    def close(self) -> None:
        self._closed.append(self._number)


class Plugins:
    """Stands in for what is installed."""

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.contexts: list[DeviceContext] = []
        self.error: Exception = UsageError("no error was set")

    def load(self, name: str) -> DevicePlugin:
        return {"good": self.good, "bad": self.bad, "wrong": self.wrong}[name]

    def good(self, context: DeviceContext) -> list[Device]:
        self.contexts.append(context)
        return [Noted(number, self.closed) for number in range(context.count)]

    def bad(self, context: DeviceContext) -> list[Device]:
        self.contexts.append(context)
        raise self.error

    def wrong(self, context: DeviceContext) -> list[Device]:
        self.contexts.append(context)
        return [Noted(9, self.closed), "a device"]  # type: ignore[list-item]


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    made = Plugins()
    monkeypatch.setattr(build, "load_device_plugin", made.load)
    return made


def scenario(*devices: dict[str, object]) -> Scenario:
    return parse_scenario({"name": "x", "devices": list(devices)}, "x")


def test_a_plugin_is_told_what_the_scenario_says(plugins: Plugins) -> None:
    machine = build_machine(scenario({"plugin": "good", "count": 3, "options": {"a": [1, "b"]}}), "destination", 42)
    assert [slot.name for slot in machine] == ["noted-0", "noted-1", "noted-2"]
    assert plugins.contexts == [DeviceContext("destination", {"a": [1, "b"]}, 3, 42)]
    assert plugins.closed == []


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (DeviceError("vfio option size is 'x': use bytes"), ScenarioError, "f.toml: devices[1].options.size: vfio opt"),
        (UsageError("count is 3, too many"), ScenarioError, "f.toml: devices[1].count: count is 3"),
        (UsageError("give more"), ScenarioError, "f.toml: devices[1].options: give more"),
        (DeviceError("the process cannot be started"), DeviceError, "the process cannot be started"),
        (
            KeyError("a"),
            PluginError,
            "f.toml: devices[1]: the device plug-in 'bad': KeyError in its function: 'a': only a ",
        ),
    ],
)
def test_a_plugin_that_fails_is_told_of_with_its_place_and_the_others_are_closed(
    error: Exception, kind: type[MigpoolError], said: str, plugins: Plugins
) -> None:
    plugins.error = error
    wanted = scenario({"plugin": "good", "count": 2}, {"plugin": "bad", "options": {"size": "x"}})
    with pytest.raises(kind) as caught:
        build_machine(wanted, "source", 1, "f.toml")
    assert str(caught.value).startswith(said)
    assert sorted(plugins.closed) == [0, 1]


def test_what_is_no_device_is_refused(plugins: Plugins) -> None:
    with pytest.raises(PluginError, match="its function returned 'a device': it must return a list of devices"):
        build_machine(scenario({"plugin": "wrong"}), "source", 1)
    assert plugins.closed == [9]


def test_two_devices_of_one_name_are_refused_and_closed(plugins: Plugins) -> None:
    with pytest.raises(UsageError, match="two devices are called noted-0"):
        build_machine(scenario({"plugin": "good"}, {"plugin": "good"}), "source", 1)
    assert plugins.closed == [0, 0]


def test_an_unknown_plugin_is_answered_with_those_there_are() -> None:
    with pytest.raises(PluginError, match=r"devices\[0\].plugin: there is no device plug-in 'floppy'; .*vfio"):
        build_machine(scenario({"plugin": "floppy"}), "source", 1, "f.toml")
