"""Finds the values under which simulated times come out as measured ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log

FIRST_STEP = 1.4
LAST_STEP = 1.005
HELPS = 0.999


def fit(
    start: Mapping[str, float], simulate: Callable[[Mapping[str, float]], Sequence[float]], measured: Sequence[float]
) -> dict[str, float]:
    """Find the values under which simulated times come out as measured ones.

    A pattern search: each value in turn is tried a step larger and a step smaller, a step that helps is kept, and when
    none does the steps become smaller. A step helps if the error becomes less by a thousandth: a value that hardly
    matters would else wander off for ever. Values and errors are taken by their ratios, since what is fitted spans
    magnitudes. It needs no derivative, which a simulation with queues does not have, and no other package.

    Arguments:
        start: a first guess for each value, over 0.
        simulate: the times that some values give, in the order of ``measured``.
        measured: what they should be, over 0.

    Returns:
        the values with the least sum of squared logarithms of simulated over measured that was found.
    """
    values = dict(start)
    best = _error(simulate(values), measured)
    step = FIRST_STEP
    while step > LAST_STEP:
        improved = False
        for name in values:
            for factor in (step, 1 / step):
                tried = {**values, name: values[name] * factor}
                error = _error(simulate(tried), measured)
                if error < best * HELPS:
                    values, best, improved = tried, error, True
                    break
        if not improved:
            step = step**0.5
    return values


def _error(simulated: Sequence[float], measured: Sequence[float]) -> float:
    return sum(log(time / wanted) ** 2 for time, wanted in zip(simulated, measured, strict=True))
