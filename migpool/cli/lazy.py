"""Commands that are imported when they are called: help, completion and every other command do without them.

A command is a function for typer, or a ``typer.Typer`` with commands of its own, named as ``module:attribute``. Those
of migpool are named in ``app.py``; a package adds its own by an entry point in the group ``migpool.commands``.

What help shows of one is the first line of the function's docstring, or of the module's for a ``Typer``, read from the
file: not even help imports anything.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar  # Any: what typer takes its classes from is its own matter

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from migpool.errors import PluginError

ENTRY_POINTS = "migpool.commands"


class LazyGroup(TyperGroup):
    """A group that knows its commands by name. A class that derives from it names its own in ``targets``."""

    targets: ClassVar[dict[str, str]] = {}

    _listing = False

    @cached_property
    def _all(self) -> dict[str, str]:
        """Every command's target by its name; a package's takes no name that is taken."""
        from importlib.metadata import entry_points  # which takes long to import

        return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)} | self.targets

    def _target(self, name: str) -> str | None:
        """A command's target. For one of migpool's own no other package is looked at, of which there can be many."""
        return self.targets.get(name) or self._all.get(name)

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The names, migpool's own first, in their order."""
        del ctx
        return [*self.targets, *sorted(self._all.keys() - self.targets.keys())]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """The command, imported; while they are only listed, its name and what it is for."""
        del ctx
        target = self._target(cmd_name)
        if target is None:
            return None
        return TyperCommand(cmd_name, help=_summary(target)) if self._listing else _imported(cmd_name, target)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called. Of one that is none, the parser would know nothing near: it knows no names."""
        if args and self._target(args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = ", ".join(f"{name!r}" for name in get_close_matches(args[0], self._all))
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with self._only_listed():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        with self._only_listed():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _only_listed(self) -> Iterator[None]:
        self._listing = True
        try:
            yield
        finally:
            self._listing = False


def group(about: str) -> typer.Typer:
    """A command that only has others below it, and shows its help if it is called without one.

    Arguments:
        about: its help; the module's docstring, of which the list of commands shows the first line.
    """
    made = typer.Typer(help=about, rich_markup_mode="rich", no_args_is_help=False)

    @made.callback(invoke_without_command=True)
    def nothing(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return made


def _imported(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"the command {name} ({target}) cannot be imported: {what}") from error
    if isinstance(found, typer.Typer):
        made = get_group(found)
        made.name = name
        for one in made.commands.values():
            one.help = _flowing(one.help)
        return made
    alone = typer.Typer(rich_markup_mode="rich", add_completion=False)
    alone.command(name)(found)
    command = get_command(alone)
    command.help = _flowing(command.help)
    return command


def _flowing(text: str | None) -> str:
    """Help whose paragraphs are a line each, so that it fits a terminal of any width; what is indented stays."""
    paragraphs = (text or "").split("\n\n")
    return "\n\n".join(one if one.startswith(" ") else " ".join(one.split("\n")) for one in paragraphs)


def _summary(target: str) -> str:
    """The first line of its docstring; empty if it cannot be read."""
    module, _, attribute = target.partition(":")
    try:
        tree = ast.parse(_file(module).read_bytes())
    except (OSError, ValueError, SyntaxError):
        return ""
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == attribute)
    return (ast.get_docstring(next(functions, tree)) or "").partition("\n")[0]


def _file(module: str) -> Path:
    """Where a module stands. Only a package at the top can be asked for without importing what is above it."""
    top, *below = module.split(".")
    spec = find_spec(top)
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        place = Path(folder, *below)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    raise FileNotFoundError(module)
