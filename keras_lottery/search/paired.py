"""Paired comparisons over replicates: confidence intervals, and what they show."""

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ERROR = (1 - CONFIDENCE) / 2
"""How often a ticket that is worse by the whole margin may be called matching."""

BETTER, MATCHING, WORSE, UNDECIDED = "better", "matching", "worse", "undecided"


def interval(values: np.ndarray, step: float = 0.0) -> tuple[float, float, float]:
    """The mean over replicates, and its 95 % confidence interval (Student's t).

    Args:
        values: one for each replicate.
        step: the unit of which the values are multiples. Accuracies on few examples may
            be equal by chance, so their spread is taken to be at least that of
            rounding.

    >>> [round(x, 2) for x in interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    >>> interval(np.array([1.0]))  # the noise of a single replicate is unknown
    (1.0, nan, nan)
    """
    if not len(values):
        return np.nan, np.nan, np.nan
    mean = float(values.mean())
    if len(values) == 1:
        return mean, np.nan, np.nan
    half = _error_of_mean(values, step) * stats.t.ppf(1 - ERROR, len(values) - 1)
    return mean, mean - float(half), mean + float(half)


def word(low: float, high: float, margin: float) -> str:
    """The verdict on a gain, from its confidence interval.

    >>> word(-0.1, 0.3, margin=0.2), word(-0.3, 0.3, margin=0.2)
    ('matching', 'undecided')
    """
    if low > 0:
        return BETTER
    if low > -margin:
        return MATCHING
    return WORSE if high < 0 else UNDECIDED


def p_value(gains: np.ndarray, margin: float, step: float = 0.0) -> float:
    """The p-value for a mean gain above -margin (one-sided test, Student's t).

    It is below 2.5 % exactly if the lower end of the 95 % interval is above -margin.
    """
    if len(gains) < 2 or np.isnan(margin):
        return np.nan
    above, error = gains.mean() + margin, _error_of_mean(gains, step)
    if error == 0:
        return 0.0 if above > 0 else 1.0
    return float(stats.t.sf(above / error, len(gains) - 1))


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for the number of comparisons.

    Reference:
        Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan])).round(2).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, factors * p[order]))
    return adjusted


def resolution(values: np.ndarray) -> float:
    """The smallest difference between measured values; for an accuracy, one example.

    >>> round(resolution(np.array([0.9, 0.95, 0.95, 0.85])), 4)
    0.05
    """
    values = values[~np.isnan(values)]
    gaps = np.diff(np.sort(values))
    # In float32, equal accuracies may differ by a rounding.
    gaps = gaps[gaps > 1e-6 * np.abs(values).max(initial=0.0)]
    return float(gaps.min()) if len(gaps) else 0.0


def _error_of_mean(values: np.ndarray, step: float) -> float:
    """The standard error of a mean of differences of two rounded values."""
    rounding = step / np.sqrt(6)  # Each is off by up to half a step, evenly.
    return float(max(values.std(ddof=1), rounding) / np.sqrt(len(values)))
