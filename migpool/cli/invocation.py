"""What belongs to one call of ``migpool`` as a whole: its common options."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LogFormat(StrEnum):
    PRETTY = "pretty"
    JSON = "json"


@dataclass(slots=True)
class Invocation:
    """The common options. They may stand before the command or after it.

    Attributes:
        verbose: how often ``-v`` was given.
        debug: whether an error shows its traceback.
    """

    verbose: int = 0
    log_format: LogFormat = LogFormat.PRETTY
    debug: bool = False
