"""The kit for device authors: does a plug-in save, load, fail and get cancelled correctly, under every threading model?

::

    subject.py   the plug-in that is looked at, and the machines made of it
    checks.py    the list of checks, and a plug-in as a command line names it;  migrating.py, calling.py: what they do

Every check works on devices that the plug-in itself made, through the interface of ``migpool.device`` alone.
"""

from __future__ import annotations

from migpool.conformance.devices.checks import checks
from migpool.conformance.devices.subject import Subject

__all__ = ["Subject", "checks"]
