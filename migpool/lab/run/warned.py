"""Warnings of whatever code runs in this process, Python's own and what a library logs, as lines for somebody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def warnings_told(tell: Callable[[str], object]) -> Iterator[None]:
    """While this is entered, every warning is told instead of printed: each line once.

    Arguments:
        tell: is called with a line, on the thread that warns.
    """
    handler = _Telling(tell)
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        logging.captureWarnings(False)


class _Telling(logging.Handler):
    """Tells records from WARNING on; the handler's own lock keeps two threads from telling one line twice."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        # The line of code that Python quotes under a warning says less than where it stands.
        text = next(iter(record.getMessage().splitlines()), "")
        if text not in self._told:
            self._told.add(text)
            self._tell(text)
