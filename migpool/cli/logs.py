"""Structured logs, on stderr: states and errors, nothing from the data path.

:func:`configure` is the one place where they are set up.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO, cast

import structlog

from migpool.cli.invocation import Invocation, LogFormat

WARNING, INFO, DEBUG = 30, 20, 10


def configure(invocation: Invocation) -> None:
    """Set structlog up for this process: warnings only, with ``-v`` changes of state, with ``-vv`` everything."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, *_rendering(invocation.log_format)],
        wrapper_class=structlog.make_filtering_bound_logger((WARNING, INFO, DEBUG)[min(invocation.verbose, 2)]),
        logger_factory=structlog.PrintLoggerFactory(_stderr()),
        cache_logger_on_first_use=False,
    )
    own = logging.getLogger("migpool")
    own.handlers = [_OwnLog()] if invocation.verbose else []
    own.setLevel(INFO if invocation.verbose else WARNING)


def announce(invocation: Invocation, event: str, **values: object) -> None:
    """Say something that is wanted however quiet the logs are: a log line in JSON, else a plain sentence."""
    if invocation.log_format is LogFormat.JSON:
        logger = structlog.wrap_logger(
            structlog.PrintLogger(_stderr()), wrapper_class=structlog.make_filtering_bound_logger(INFO)
        )
        logger.info(event, **values)
    else:
        print(event, *values.values(), file=sys.stderr, flush=True)  # noqa: T201


def _rendering(log_format: LogFormat) -> list[Any]:
    if log_format is LogFormat.JSON:
        return [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(default=str),
        ]
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"), pad_event_to=0),
    ]


class _OwnLog(logging.Handler):
    """What migpool's lower floors log in Python's own way: at INFO, as warnings are told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(lambda record: record.levelno == INFO)

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().info(record.getMessage())


class _Stderr:
    """Whatever ``sys.stderr`` is when a line is written: a live display stands in for it while it is shown."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _stderr() -> TextIO:
    # A logger only writes and flushes.
    return cast("TextIO", _Stderr())
