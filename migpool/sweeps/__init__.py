"""Sweeps: one scenario at many points of a space of its keys, simulated or run, on this host or on a cluster.

``form.py`` is the file, ``points.py`` what its points are, ``measure.py`` what is done at one; ``local.py`` and
``cluster.py`` are who does it, ``store.py`` where it is kept, ``run.py`` the whole of it; ``matters.py`` says what the
points show, ``page.py`` shows it.
"""
