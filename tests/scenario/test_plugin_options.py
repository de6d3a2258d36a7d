"""What a plug-in's options are is declared once: what reads them, what refuses them and what lists them agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from migpool.device import DeviceContext, DeviceError, Option, Options
from migpool.errors import MigpoolError, UsageError
from migpool.scenario.plugins import load_device_plugin, named, names, options_of
from migpool.scenario.schema import builtin_names, load_scenario
from tests.support.commandline import announced, here

DECLARED = [(name, table) for name in names("device") for table in options_of(name)]
WITH = {"": {}, 'backend "vfio-user"': {"backend": "vfio-user"}, 'backend "kernel"': {"backend": "kernel"}}


def test_every_plugin_declares_what_it_takes() -> None:
    assert {name for name, _ in DECLARED} >= {"guest", "vcpu", "vfio", "vmsd", "ringnic"}
    assert [table.to for table in options_of("vfio")] == list(WITH)


@pytest.mark.parametrize(("name", "table"), DECLARED, ids=[f"{name} {table.to}" for name, table in DECLARED])
def test_a_plugin_refuses_an_unknown_option_with_the_declared_ones(name: str, table: Options) -> None:
    with pytest.raises(MigpoolError, match="option unheard-of is unknown") as caught:
        load_device_plugin(name)(DeviceContext("source", {**WITH[table.to], "unheard-of": 1}))
    assert str(caught.value).partition(": use ")[2] == ", ".join(sorted(option.name for option in table.declared))


@pytest.mark.parametrize(
    ("name", "table", "option"),
    [(name, table, option) for name, table in DECLARED for option in table.declared],
    ids=lambda value: value.name if isinstance(value, Option) else value if isinstance(value, str) else "",
)
def test_every_option_is_read_where_it_is_declared(name: str, table: Options, option: Option[Any]) -> None:
    """What none can be is refused, in a line with its key: an option that nobody reads would be taken."""
    assert option.meaning
    assert option.type
    with pytest.raises(MigpoolError) as caught:
        load_device_plugin(name)(DeviceContext("source", {**WITH[table.to], option.name: {"what": "no option is"}}))
    assert option.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_comes_with_migpool_gives_declared_options_alone() -> None:
    given = [entry for name in builtin_names() for entry in load_scenario(name).devices]
    assert given
    for entry in given:
        known = {option.name for table in options_of(entry.plugin) for option in table.declared}
        assert entry.options.keys() <= known


@pytest.mark.parametrize(
    ("option", "written", "read", "default", "refused"),
    [
        (Option.flag("x", True, ""), False, False, "true", 0),
        (Option.whole("x", 3, "", least=1, most=9), 9, 9, "3", True),
        (Option.whole("x", 3, "", least=1, most=9), 1, 1, "3", 10),
        (Option.number("x", 0.5, "", least=0.1), 1, 1.0, "0.5", float("nan")),
        (Option.size("x", 64 << 20, ""), "1.5KiB", 1536, '"64MiB"', "1.5B"),
        (Option.size("x", 1000, ""), 7, 7, "1000", -1),
        (Option.rate("x", 400 << 20, ""), "2MiB/s", 2 << 20, '"400MiB"', "fast"),
        (Option.seconds("x", 0.1, ""), "5ms", 0.005, "0.1", -1),
        (Option.time_limit("x", 30.0, ""), "2s", 2.0, "30", 0),
        (Option.one_of("x", "a", "", ("a", "b")), "b", "b", '"a"', ["a"]),
    ],
)
def test_each_type_reads_lists_and_refuses(
    option: Option[Any], written: Any, read: object, default: str, refused: Any
) -> None:
    options = Options("mine", option)
    assert options.read({})[option] == option.default
    assert options.read({"x": written})[option] == read
    assert option.shown_default == default
    with pytest.raises(DeviceError) as caught:
        options.read({"x": refused})[option]
    assert str(caught.value) == f"mine option x is {refused!r}: use {option.values}"


def test_the_command_shows_one_plugin_with_its_options() -> None:
    shown = " ".join(here("plugins", "ringnic").out.split())
    assert 'ring size, bytes "64KiB" the ring of each card' in shown
    (told,) = json.loads(here("plugins", "vfio", "--json").out)
    assert (told["name"], {option["with"] for option in told["options"]}) == ("vfio", set(WITH))
    (size,) = [option for option in told["options"] if option["name"] == "size"]
    assert (size["type"], size["unit"], size["default"]) == ("size", "bytes", 64 << 20)
    (model,) = json.loads(here("plugins", "pool", "--json").out)
    assert (model["kind"], model["options"]) == ("scheduler", [])


def test_a_name_that_is_none_is_told_with_what_is_near() -> None:
    with pytest.raises(UsageError, match=r"there is no plug-in 'vfoi'; did you mean vfio\?$"):
        named("vfoi")
    assert here("plugins", "nothing-like-it").code == 2


def test_what_is_declared_must_be_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_options.py").write_text("OPTIONS = {'size': 1}\ndef devices(context): return []\n")
    monkeypatch.syspath_prepend(tmp_path)
    announced(tmp_path, "odd-options", "[migpool.devices]\nodd-options = odd_options:devices\n")
    ended = here("plugins", "odd-options")
    assert ended.code == 1
    assert "odd_options.OPTIONS must be migpool.device.Options" in ended.err
