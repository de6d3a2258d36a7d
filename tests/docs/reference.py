"""The pages of ``docs/reference``, made from what they are about: ``python -m tests.docs.reference`` writes them.

Models, options, effects, commands and codes say themselves what they are, in their docstrings and declarations; a page
only puts that into tables. ``test_reference.py`` finds a page that is not what would be written.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

import typer
from typer.models import OptionInfo, ParameterInfo

from migpool.cli.app import Commands
from migpool.cli.exit_code import ExitCode
from migpool.cli.lazy import ENTRY_POINTS
from migpool.core import effects, own_effects
from migpool.lab.analysis.kinds import BY_NAME
from migpool.lab.report.table import markdown_table
from migpool.scenario import schema
from migpool.scenario.plugins import describe, options_of
from migpool.units import written_size
from tests.support import ROOT

DIRECTORY: Final = ROOT / "docs"
MADE: Final = "This page is made from the code by `python -m tests.docs.reference`."


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", *parts, MADE]) + "\n"


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join(markdown_table(f"| {' | '.join(heading)} |", rows))


def plain(text: str) -> str:
    """A docstring's sentence as Markdown has it."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())


def attribute_docstrings(cls: type) -> dict[str, str]:
    """What stands below each attribute of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        target = getattr(node, "target", None) or getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[target.id] = plain(str(after.value.value))
    return found


# ---------------------------------------------------------------- scenario


def scenario() -> str:
    tables = [name for name in schema.Scenario.model_fields if keys_of(name) is not None]
    parts = [
        "A scenario is a TOML file; `migpool scenario show default` prints one, `migpool scenario check FILE` checks "
        "one. Every key but `name` and one device has a default. Sizes are whole numbers of bytes or text such as "
        '`"64MiB"`, rates may end with `/s`.',
        *scenario_table(schema.Scenario, "At the top", without=tables),
    ]
    for name in tables:
        model = keys_of(name)
        assert model is not None
        parts += scenario_table(model, f"[[{name}]]" if name == "devices" else f"[{name}]")
    return page("All keys of a scenario", *parts)


def keys_of(name: str) -> type[schema.Table] | None:
    """The model of a table of the scenario; ``None`` for a key that is none."""
    annotation = schema.Scenario.model_fields[name].annotation
    kinds = [kind for kind in (annotation, *typing.get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, schema.Table)), None)


def scenario_table(model: type[schema.Table], title: str, without: Sequence[str] = ()) -> list[str]:
    described = model.model_json_schema()["properties"]
    meanings = attribute_docstrings(model)
    required = model.model_json_schema().get("required", ())
    rows = []
    for key, told in described.items():
        if key in without:
            continue
        one = next((way for way in told.get("anyOf", ()) if way["type"] != "null"), told)
        unit = one.get("unit", "")
        default = "required" if key in required else default_of(told["default"], unit)
        rows.append((f"`{key}`", type_of(one, unit), unit, default, range_of(one, unit), meanings[key]))
    about = plain(inspect.getdoc(model) or "")
    return [f"## {title}", about, table(("key", "type", "unit", "default", "range", "meaning"), rows)]


def type_of(told: Mapping[str, Any], unit: str) -> str:
    if "enum" in told:
        return "one of"
    if unit.startswith("bytes"):
        return "rate" if "per" in unit else "size"
    words = {"integer": "whole number", "string": "text", "boolean": "true or false", "object": "table"}
    if told["type"] == "array":
        return f"list of {type_of(told['items'], '')}"
    return words.get(told["type"], str(told["type"]))


def default_of(value: object, unit: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, int) and unit.startswith("bytes"):
        return f'`"{written_size(value)}"`'
    return f"`{json.dumps(value)}`"


def range_of(told: Mapping[str, Any], unit: str) -> str:
    if "enum" in told:
        return ", ".join(f'`"{word}"`' for word in told["enum"])

    def number(value: int) -> str:
        return written_size(value) if unit == "bytes" else str(value)

    words = {
        "minimum": "from {}",
        "ge": "from {}",
        "exclusiveMinimum": "over {}",
        "maximum": "to {}",
        "le": "to {}",
        "exclusiveMaximum": "below {}",
        "multiple_of": "in steps of {}",
        "maxLength": "{} characters at most",
        "minItems": "{} at least",
    }
    return ", ".join(text.format(number(told[key])) for key, text in words.items() if key in told)


# ---------------------------------------------------------------- plug-ins


def plugins() -> str:
    parts = [
        "What may stand in `options` of an entry of `[[devices]]`; `migpool plugins NAME` shows the same, for every "
        "plug-in that is installed."
    ]
    for plugin in describe():
        if plugin.kind == "device" and plugin.distribution == "migpool":
            parts += [f"## {plugin.name}", plugin.summary]
            for options in options_of(plugin.name):
                if options.to:
                    parts.append(f"With `{options.to.replace(' ', ' = ')}`:")
                rows = [
                    (
                        f"`{one.name}`",
                        one.type,
                        one.unit,
                        f"`{one.shown_default}`" if one.shown_default else "none",
                        one.shown_values,
                        one.meaning,
                    )
                    for one in options.declared
                ]
                parts.append(table(("option", "type", "unit", "default", "range", "meaning"), rows))
    return page("All options of the plug-ins", *parts)


# ----------------------------------------------------------- effects, waits


def waits() -> str:
    kinds = attribute_docstrings(effects.Wait)
    spans = [
        (
            f"`{one.wait.name}`" if one.wait is not None else "",
            one.wait.value if one.wait is not None else "",
            one.name,
            f"`{one.mark}`",
            one.left_by if one.wait is not None else "the analysis",
            one.kind,
            kinds[one.wait.name] if one.wait is not None else f"{one.meaning[0].upper()}{one.meaning[1:]}.",
        )
        for one in BY_NAME.values()
    ]
    performed = [
        (
            f"`{effect.__name__}`",
            f"`{effect.wait.name}`",
            answer_of(effect),
            plain((inspect.getdoc(effect) or "").split("\n\n")[0]),
        )
        for effect in {**vars(effects), **vars(own_effects)}.values()
        if isinstance(effect, type) and issubclass(effect, effects.Effect) and hasattr(effect, "wait")
    ]
    return page(
        "All effects and spans",
        "What a job may wait for, and what a trace says of it. How they fit together: "
        "[architecture](../architecture.md).",
        "## Effects",
        table(("effect", "leaves", "is answered with", "what it is"), performed),
        "## Spans",
        "The number is that of a trace; the mark is the terminal's; the last column but one is the kind to which time "
        "on the critical path counts.",
        table(("span", "number", "name", "mark", "left by", "counts as", "what was going on"), spans),
    )


def answer_of(effect: type) -> str:
    """What stands in the brackets of an effect's base."""
    for cls in effect.__mro__:
        for base in cls.__dict__.get("__orig_bases__", ()):
            (answer,) = typing.get_args(base)
            if isinstance(answer, typing.TypeVar):
                continue
            name = answer.__forward_arg__ if isinstance(answer, typing.ForwardRef) else inspect.formatannotation(answer)
            return "" if name == "NoneType" else f"`{re.sub(r'[a-z_]+[.]', '', name)}`"
    return ""


# ----------------------------------------------------------- commands, codes


def commands() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every command of this package, with its function."""
    theirs = {
        point.name: point.value
        for point in entry_points(group=ENTRY_POINTS)
        if point.dist and point.dist.name == "migpool"
    }
    for name, target in {**Commands.targets, **theirs}.items():
        module, _, attribute = target.partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            yield name, found
            continue
        for command in found.registered_commands:
            assert command.callback is not None
            yield f"{name} {command.name or command.callback.__name__}", command.callback


def parameters(function: Callable[..., object]) -> Iterator[tuple[type, ParameterInfo, object]]:
    """The type, declaration and default of each parameter that a user gives."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        told = typing.get_args(hints[name])
        if told and isinstance(told[-1], ParameterInfo):
            yield told[0], told[-1], parameter.default


def marked(text: str) -> str:
    """Help as Markdown: what is coloured there is code here."""
    return plain(re.sub(r"\[(?:cyan|bold)\](.*?)\[/\]", r"`\1`", text))


def paragraphs(function: Callable[..., object]) -> list[str]:
    return [part.strip() for part in (inspect.getdoc(function) or "").split("\n\n")]


def command_rows(function: Callable[..., object]) -> Iterator[tuple[str, str, str]]:
    for kind, told, default in parameters(function):
        if told.callback is not None:
            continue  # one of the common options
        metavar = "" if bool in (kind, *typing.get_args(kind)) else f" {told.metavar or choices(kind)}"
        if isinstance(told, OptionInfo):
            what = ", ".join(f"`{word}{metavar}`" for word in names_of(told))
        else:
            what = f"`{metavar.strip()}`"
        empty = default in (None, "", False) or default is inspect.Parameter.empty or told.show_default is False
        value = default.value if isinstance(default, Enum) else default
        required = default is inspect.Parameter.empty
        yield what, "required" if required else "" if empty else f"`{value}`", marked(told.help or "")


def names_of(told: OptionInfo) -> tuple[str, ...]:
    """``--long``, ``-s``. The first is taken for the default, as typer reads a declaration within ``Annotated``."""
    return (str(told.default), *(told.param_decls or ()))


def option_words(function: Callable[..., object]) -> set[str]:
    """Every option of a command, as it is typed."""
    found = [told for _, told, _ in parameters(function) if isinstance(told, OptionInfo)]
    return {word for told in found for name in names_of(told) for word in name.split("/")}


def choices(kind: type) -> str:
    options = [one for one in (kind, *typing.get_args(kind)) if isinstance(one, type) and issubclass(one, Enum)]
    return "|".join(member.value for member in options[0]) if options else "VALUE"


def commands_page() -> str:
    parts = [
        "`migpool COMMAND --help` says the same, with examples. `--debug`, which shows the traceback of an error, "
        "stands before or after every command; so do, where something runs, `-v` and `-vv` (log changes of state, or "
        "everything) and `--log-format pretty|json`. `migpool --install-completion` has the shell complete commands, "
        "scenarios, models and files. `NO_COLOR` and `COLUMNS` are honoured. How commands end: "
        "[exit codes](exit-codes.md).",
    ]
    for name, function in commands():
        told = [marked(part) for part in paragraphs(function) if not part.startswith(("[cyan]", "Exit codes"))]
        parts += [f"## migpool {name}", *told]
        if rows := list(command_rows(function)):
            parts.append(table(("argument or option", "default", "what it is"), rows))
    return page("All commands", *parts)


def exit_codes() -> str:
    meanings = attribute_docstrings(ExitCode)
    own = []
    for name, function in commands():
        said = " ".join((inspect.getdoc(function) or "").split())
        if found := re.search(r"Exit codes: ([^.]*)\.", said):
            own.append((f"`migpool {name}`", found[1]))
    return page(
        "All exit codes",
        table(("code", "meaning"), [(code.value, meanings[code.name]) for code in ExitCode]),
        "Where a command's own meaning is narrower, its help says so:",
        table(("command", "exit codes"), own),
    )


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/scenario.md": scenario,
    "reference/plugins.md": plugins,
    "reference/waits.md": waits,
    "reference/commands.md": commands_page,
    "reference/exit-codes.md": exit_codes,
}


def main() -> None:
    from tests.docs.manual import manual
    from tests.docs.public import PUBLIC, public_page, refused

    for name, made in {**PAGES, PUBLIC: public_page, "shell/migpool.1": manual}.items():
        path, text = DIRECTORY / name, made()
        if name == PUBLIC and path.exists() and (reason := refused(path.read_text("utf-8"), text)):
            sys.exit(reason)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
