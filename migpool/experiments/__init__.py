"""Experiments: claims about threading models, each with the runs that decide it.

``form.py`` reads a claim's file, ``runner.py`` goes from there to what was found, ``finding.py``; ``page.py``,
``plot.py`` and ``terminal.py`` show it. The claims that come with migpool, in ``claims``, are data without code. They
stand in the package, as the built-in scenarios do: they are read by the installed program, and a claim whose file is
not there would be one that nobody can check.
"""
