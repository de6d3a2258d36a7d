"""Experiments: claims about threading models, each with the runs that decide it.

::

    claims/           the claims that come with migpool, a TOML file each: data, no code
    form.py           such a file as a validated model
    catalogue.py      finds them by name
    runner.py         runs one from its file to its finding
    repetitions.py    makes the runs, round by round, until the answer is narrow enough or the time is up
    cancels.py        cancels migrations at many waits, and counts what is left of them
    interval.py       the interval of a median, without any assumption about the distribution
    verdict.py        from intervals and counts to "supported", "refuted" or "depends"
    finding.py        everything that was found, and its JSON
    page.py           the same as a page of Markdown;  plot.py: as a picture;  terminal.py: on a terminal
    results.py        a directory of all three, written and read

The files stand in the package, as the built-in scenarios do: they are read by the installed program, and a claim whose
file is not there would be one that nobody can check.
"""
