"""The simulator: the jobs of a migration in virtual time, for machines, links and device counts that are not here.

The jobs are those of ``migpool/core/jobs.py``, and the windows those of ``migpool/flow/window.py``: the simulator
cannot drift from the real thing in what is done in which order; it replaces only how long each wait takes. It needs
SimPy (the extra ``sim``).
"""
