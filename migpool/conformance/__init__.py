"""The kit for device authors: does a plug-in save, load, fail and get cancelled correctly, under every threading model?

::

    subject.py        the plug-in that is looked at, and the machines made of it
    pairing.py        both ends of a migration in this process
    interference.py   an error in a chosen call, a cancel at a chosen wait
    checks.py         the list of checks;  migrating.py, calling.py: what they do
    running.py        runs them, each with a time limit
    showing.py        the report
    pytest_plugin.py  the same as tests of pytest: ``pytest --migpool-plugin NAME``

Every check works on devices that the plug-in itself made, through the interface of ``migpool.device`` alone.
"""

from __future__ import annotations

from migpool.conformance.checks import Check, checks
from migpool.conformance.running import Finding, Outcome, run_checks
from migpool.conformance.subject import Subject

__all__ = ["Check", "Finding", "Outcome", "Subject", "checks", "run_checks"]
