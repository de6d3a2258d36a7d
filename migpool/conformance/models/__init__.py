"""The kit for authors of threading models: does a model keep the contract at the top of ``migpool/schedulers/base.py``?

::

    subject.py     the model that is looked at, at one end
    bench.py       the model set up with made devices, whose chunks a check brings
    checks.py      the list of checks
    order.py       what they do: jobs run once, in order, all of them
    ending.py      errors, cancels, the end, threads
    migration.py   migrations of both ends, with made devices
    child.py       checks in a process of their own, which can be ended whatever the model does

Jobs here wait for chunks and write them, at either end: so every model is given the same work, a source's too.
"""

from __future__ import annotations

from migpool.conformance.models.checks import checks
from migpool.conformance.models.subject import Subject, subjects

__all__ = ["Subject", "checks", "subjects"]
