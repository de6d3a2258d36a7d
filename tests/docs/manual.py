"""The manual page ``docs/shell/migpool.1``, made from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.metadata import metadata

from typer.models import OptionInfo

from migpool.cli.app import HELP, common
from migpool.cli.exit_code import ExitCode
from tests.docs.reference import attribute_docstrings, command_rows, commands, marked, names_of, paragraphs, parameters

MADE = "Made from the code by python -m tests.docs.reference."


def manual() -> str:
    """The page ``migpool(1)``, in the macros of man(7), which groff and mandoc both read."""
    of = metadata("migpool")
    lines = [f'.\\" {MADE}', f'.TH MIGPOOL 1 "" "migpool {of["Version"]}" "User commands"']
    lines += [".SH NAME", roff(f"migpool - {of['Summary'][0].lower()}{of['Summary'][1:]}")]
    lines += [".SH SYNOPSIS", ".B migpool", r"\fICOMMAND\fR [\fIARGUMENT\fR]... [\fIOPTION\fR]..."]
    lines += [".SH DESCRIPTION", roff(" ".join(HELP.split("[bold]")[0].split()))]
    lines += [".PP", roff("`migpool COMMAND --help` shows examples. The documents of the project say more.")]
    lines += [".SH OPTIONS", "Before or after every command:"]
    for _, told, _ in parameters(common):
        assert isinstance(told, OptionInfo)
        lines += [".TP", roff(", ".join(f"`{word}`" for word in names_of(told))), roff(told.help or "")]
    lines += [".SH COMMANDS"]
    for name, function in commands():
        lines += list(_command(name, function))
    lines += [".SH EXIT STATUS"]
    meanings = attribute_docstrings(ExitCode)
    for code in ExitCode:
        lines += [".TP", rf"\fB{code.value}\fR", roff(meanings[code.name])]
    lines += [".SH ENVIRONMENT", ".TP", r"\fBNO_COLOR\fR", "No colours, if it is set."]
    lines += [".TP", r"\fBCOLUMNS\fR", "How wide tables are where the output is no terminal."]
    lines += [".SH SEE ALSO", r"\fBqemu\fR(1), \fBvirsh\fR(1)"]
    return "\n".join(lines) + "\n"


def _command(name: str, function: Callable[..., object]) -> Iterator[str]:
    yield f".SS migpool {name}"
    for number, part in enumerate(paragraphs(function)):
        if not part.startswith("[cyan]"):
            yield from ([".PP"] if number else [])
            yield roff(marked(" ".join(part.split())))
    for what, default, told in command_rows(function):
        without = "" if default in ("", "required") else f" Default: {default.strip('`')}."
        yield ".TP"
        yield roff(what.replace("`, `", ", ").replace("\\|", "|"))
        yield roff(f"{told}{without}")


def roff(text: str) -> str:
    """Text as man(7) has it: what stands in grave accents is bold, a hyphen is one, no line is taken for a macro."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return re.sub(r"^([.'])", r"\\&\1", text)
