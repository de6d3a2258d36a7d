"""The kits: for authors of devices, in ``devices``, and for authors of threading models, in ``models``.

What both have in common:

::

    check.py          what a check is, and how it says that it failed
    running.py        runs checks, each with a time limit
    pairing.py        both ends of a migration in this process
    interference.py   an error in a chosen call, a cancel at a chosen wait
    showing.py        the report
    pytest_plugin.py  the same as tests of pytest: ``pytest --migpool-plugin NAME``, ``pytest --migpool-model NAME``
"""
