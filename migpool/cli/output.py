"""What a command writes: files that are there whole or as they were before, and stdout, which may be full or closed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from migpool.errors import MigpoolError, UsageError
from migpool.untrusted.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

REPORT: Final = Path("migpool-report.html")
"""Where ``compare`` writes the report, and ``report`` unless it is told otherwise."""

STDOUT: Final = Path("-")
"""As a file's name: standard output, which then has nothing else."""


def say(line: str) -> None:
    """One line on stdout, at once, whatever names are in it."""
    print(printable(line), flush=True)  # noqa: T201


def complain(line: str) -> None:
    """One line on stderr, after what stands on stdout, whatever names are in it."""
    sys.stdout.flush()
    print(f"migpool: {printable(line)}", file=sys.stderr, flush=True)  # noqa: T201


def noting() -> Callable[[str], None]:
    """What tells the user of things that end nothing, on stderr: each line once, however often it comes."""
    told: set[str] = set()

    def note(line: str) -> None:
        if line not in told:
            told.add(line)
            complain(f"note: {line}")

    return note


def reported(path: Path) -> str:
    return f"Report       {path} (a page for the browser)"


def check_writable(*paths: Path | None) -> None:
    """Find out before the work begins whether the files can be written, and not after it.

    Raises:
        UsageError: one cannot, or two would go to standard output.
    """
    if sum(path == STDOUT for path in paths) > 1:
        raise UsageError("only one file can go to standard output (-): name the others")
    for path in paths:
        if path is None or path == STDOUT:
            continue
        if path.is_dir():
            raise UsageError(f"{path} is a directory: name a file")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no directory {path.absolute().parent}")
        replaced = not path.exists() or path.is_file()
        if not os.access(path.resolve().parent if replaced else path, os.W_OK):
            raise UsageError(f"{path} cannot be written: no permission")
        if path.is_file() and not os.access(path, os.W_OK):
            raise UsageError(f"{path} cannot be written: no permission")


def write(path: Path, text: str) -> None:
    """Write a file, so that it is there whole, or whatever was there before is.

    It is written beside, under a name of its own, and takes the other's place when all of it is on the disk. What is no
    file but can be written, such as a FIFO, is just written.

    Raises:
        MigpoolError: it cannot be written.
    """
    if path == STDOUT:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()
        return
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """As :func:`write`, but never to standard output."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise MigpoolError(f"{path} cannot be written: {error.strerror or error}") from None


def write_all(files: Mapping[Path, str]) -> None:
    """Write files, as many as can be, whatever happens to the others.

    Raises:
        MigpoolError: some cannot be written; a line for each.
    """
    failed = []
    for path, text in files.items():
        try:
            write(path, text)
        except MigpoolError as error:
            failed.append(str(error))
    if failed:
        raise MigpoolError("\n".join(failed))


def _replace(path: Path, data: bytes) -> None:
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0o077)
        os.umask(mask)
        mode = 0o666 & ~mask
    import tempfile  # which takes long to import

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 -- it is open already
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class _Stdout(io.FileIO):
    """Standard output that knows what became of it: an error of it is told from one of any other file."""

    problem: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.problem = error
            raise


def open_standard_streams() -> None:
    """Have stdin, stdout and stderr be there if they were closed, before a file or socket is taken for one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 -- for good
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and out is sys.__stdout__:
        raw = io.BufferedWriter(_Stdout(out.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(raw, out.encoding, out.errors, line_buffering=out.line_buffering)


def end_stdout() -> str:
    """Give out what was printed, before the process ends.

    Returns:
        Why it could not be given out; empty if it was, or nobody reads it any more.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # the second: it was closed
        # What is left of it goes nowhere, so that the interpreter does not complain of it at its end.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    problem = raw.problem if isinstance(raw, _Stdout) else None
    if problem is None or isinstance(problem, BrokenPipeError):
        return ""
    return f"stdout cannot be written: {problem.strerror or problem}"
