"""How a check says that it failed, or does not apply."""

from __future__ import annotations


class Failure(Exception):
    """The plug-in does not do what the check is about; one line that says what it did and what would be right."""


class NotApplicable(Exception):
    """The check has nothing to look at in this plug-in; one line that says why."""
