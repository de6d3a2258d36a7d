"""The simulator: the jobs of a migration in virtual time, for machines, links and device counts that are not here.

::

    simulate.py       what is simulated (a device's profile, a host's resources); interprets jobs in virtual time
    fitting.py        finds the profile under which downtimes come out as published
    published.py      the published downtimes, and which shared resource it takes to explain them
    told.py           what was found as a table, a page and JSON

The jobs are those of ``migpool/core/jobs.py``, and the windows those of ``migpool/flow/window.py``: the simulator
cannot drift from the real thing in what is done in which order; it replaces only how long each wait takes. It needs
SimPy (the extra ``sim``).
"""
