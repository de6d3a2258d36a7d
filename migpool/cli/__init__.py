"""The command line. A file a command or a pair of them; each does nothing but arguments, progress and printing.

Whatever takes time to import is imported by the command that needs it, so that help and completion are quick.
"""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False  # not typing's, which takes longer to import than all else before main
if TYPE_CHECKING:
    from typing import NoReturn

    from migpool.cli.invocation import Invocation

__all__ = ["main"]


def main() -> NoReturn:
    """The entry point of ``migpool``: run a command and end with its exit code.

    What the codes mean stands at :class:`migpool.cli.exit_code.ExitCode`.
    """
    try:
        code = _run()
    except KeyboardInterrupt:  # while modules were being imported, before or after the command
        code = 130
    sys.exit(code)


def _parsed(invocation: Invocation) -> int | str | None:
    """Have the parser look at the arguments, and run the command that they name."""
    from migpool.cli.app import app

    code: int | str | None = app(standalone_mode=False, prog_name="migpool", obj=invocation)
    return code


def _run() -> int | str | None:
    from migpool.cli.output import end_stdout, open_standard_streams

    open_standard_streams()
    gc.disable()  # nothing of what modules are made of is garbage
    from migpool.cli.exit_code import explain
    from migpool.cli.interrupt import unwind_on_sigterm
    from migpool.cli.invocation import Invocation
    from migpool.cli.plain import plain_call

    unwind_on_sigterm()
    invocation = Invocation()
    try:
        call = plain_call(sys.argv[1:])
        if not gc.get_freeze_count():  # the first call in this process
            gc.freeze()  # so it is not looked through later either, nor at the end
        gc.enable()
        code: int | str | None = call() if call is not None else _parsed(invocation)
    except BaseException as error:
        if invocation.debug and isinstance(error, Exception):
            raise
        lines, code = explain(error)
        if isinstance(error, OSError) and end_stdout():
            lines, code = [], 1  # said below
        for line in lines:
            print(line, file=sys.stderr)  # noqa: T201
    if problem := end_stdout():
        print(f"migpool: {problem}", file=sys.stderr)  # noqa: T201
        code = code or 1
    return code
