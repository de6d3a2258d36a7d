"""Runs of one task, by the C program or by migpool, each in fresh processes; the content is checked outside the clock.

Guarantees:

1. Both programs get the same descriptors: the same memfds, or the read ends of pipes and sockets that the same feeder
   fills.
2. No process is left, whatever happens; a run that takes longer than ``LIMIT`` is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.datapath.compiled import program
from benchmarks.datapath.content import Content
from benchmarks.datapath.failure import BenchmarkFailure
from benchmarks.datapath.task import Account, Measure, Task

__all__ = ["run_c", "run_python"]

LIMIT = 90.0
ROOT = Path(__file__).parents[2]


def run_c(task: Task, content: Content | None) -> Measure:
    """Run ``task`` by the C program.

    Arguments:
        content: the state; ``None`` if the task touches none.

    Raises:
        BenchmarkFailure: it failed, or moved something else than the state.
    """
    with _descriptors(task, content) as (sources, sinks):
        command = [
            str(program()),
            "move",
            f"--read={task.reading}",
            f"--write={task.writing}",
            f"--transport={task.transport}",
            f"--channels={task.channels}",
            f"--devices={task.devices}",
            f"--workers={task.workers}",
            f"--chunk={task.chunk}",
            f"--size={task.size}",
            f"--from={_list(sources)}",
            f"--to={_list(sinks)}",
            *(["--busy"] if task.busy else []),
        ]
        with _process(command, (*sources, *sinks)) as process:
            found = json.loads(_result(process, "the C program"))
    _check(task, content, found["bytes"])
    return Measure(
        seconds=found["seconds"],
        bytes=found["bytes"],
        user=found["source_user"] + found["destination_user"],
        system=found["source_system"] + found["destination_system"],
    )


def run_python(task: Task, content: Content | None) -> Measure:
    """Run ``task`` by migpool: a source and a destination, each in an interpreter of its own.

    Arguments:
        content: the state; ``None`` if the task touches none.

    Raises:
        BenchmarkFailure: it failed, or moved something else than the state.
    """
    with contextlib.ExitStack() as stack:
        sources, sinks = stack.enter_context(_descriptors(task, content))
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="migpool-bench-"))
        address = f"unix:{place}/socket" if task.transport == "unix" else "tcp:127.0.0.1:0"
        destination = stack.enter_context(_process(_side("destination", task, sinks, address), sinks))
        source = stack.enter_context(_process(_side("source", task, sources, ""), sources))
        bound = destination.stdout.readline() if destination.stdout else ""
        if not bound:
            _result(destination, "the destination")
        sent = Account.decode(_result(source, "the source", bound))
        received = Account.decode(_result(destination, "the destination"))
    failed = [f"{who}: {each.error}" for who, each in (("source", sent), ("destination", received)) if each.error]
    if failed:
        raise BenchmarkFailure("; ".join(failed))
    _check(task, content, received.bytes)
    return Measure(
        seconds=(received.stamp - sent.stamp) * 1e-9,
        bytes=received.bytes,
        user=sent.user + received.user,
        system=sent.system + received.system,
        switchover=sent.switchover,
    )


def _side(side: str, task: Task, fds: Sequence[int], address: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.datapath.side", side, task.encode(), _list(fds), address]


def _list(fds: Sequence[int]) -> str:
    return ",".join(map(str, fds))


def _check(task: Task, content: Content | None, moved: int) -> None:
    if moved != task.bytes:
        raise BenchmarkFailure(f"{moved} bytes were moved, the devices have {task.bytes}")
    if content is not None:
        content.check()


@contextlib.contextmanager
def _descriptors(task: Task, content: Content | None) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """What the devices read from and write to; the sinks are wrong everywhere before the run."""
    if content is None:
        yield (), ()
        return
    content.spoil()
    for fd in (*content.sources, *content.sinks):
        os.lseek(fd, 0, os.SEEK_SET)  # splice(2) goes by the file offset
    if task.reading not in ("read", "recv"):
        yield content.sources, content.sinks
        return
    with contextlib.ExitStack() as stack:
        ends = []
        for state in content.sources:
            reader, writer = _pair(task)
            stack.callback(os.close, reader)
            ends.append(reader)
            command = [str(program()), "feed", str(state), str(writer), str(task.size), str(task.chunk)]
            try:
                stack.enter_context(_process(command, (state, writer)))
            finally:
                os.close(writer)
        yield ends, content.sinks


def _pair(task: Task) -> tuple[int, int]:
    """The read end and the write end of what a feeder fills."""
    if task.reading == "recv":
        mine, theirs = socket.socketpair()
        return mine.detach(), theirs.detach()
    reader, writer = os.pipe()
    with contextlib.suppress(OSError):  # the system allows no more to this user
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, task.chunk)
    return reader, writer


@contextlib.contextmanager
def _process(command: Sequence[str], fds: Sequence[int]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=tuple(fds),
        cwd=ROOT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _result(process: subprocess.Popen[str], who: str, say: str | None = None) -> str:
    try:
        output, errors = process.communicate(say, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise BenchmarkFailure(f"{who} has not ended within {LIMIT:g} s") from None
    if process.returncode:
        lines = errors.strip().splitlines() or ["it says nothing"]
        # What went wrong first is the reason; only a traceback says it last.
        said = lines[-1] if lines[0].startswith("Traceback") else lines[0]
        raise BenchmarkFailure(f"{who} failed with status {process.returncode}: {said}")
    return output
