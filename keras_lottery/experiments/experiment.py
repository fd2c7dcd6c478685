"""What an experiment is: trainings at a scale, and the claims that they test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.models import Recipe
from keras_lottery.results import interval

if TYPE_CHECKING:
    from keras_lottery.experiments.lab import Lab

Values = float | Sequence[float] | np.ndarray
"""A number, or one for each replicate."""

Range = tuple[float, float]
"""Values above the first number, up to the second."""

INFINITY = float("inf")
ABOVE_ZERO: Range = (0.0, INFINITY)


@dataclass(frozen=True)
class Claim:
    """What a paper says, and when a measured value agrees with it.

    Args:
        what: the claim, in a few words.
        published: the figure as it is printed, or the words where there is none;
            `"open"` for a question that nobody has answered.
        source: where it is printed.
        value: the name of the measured value.
        reproduced: the values that count as reproduced.
        unit: of the value.
        sign: those that at least have its direction; `None` where there is none. A
            claim whose `sign` is the same as `reproduced` is one of direction alone:
            it is reproduced if the 95 % confidence interval of the mean over
            replicates lies within, not the mean alone.
    """

    what: str
    published: str
    source: str
    value: str
    reproduced: Range
    unit: str = ""
    sign: Range | None = None

    def verdict(self, measured: Mapping[str, Values]) -> str:
        """`"reproduced"`, `"sign reproduced"`, `"not reproduced"` or `"not run"`.

        Of an open question, `"holds"`, `"not certain"` or `"does not hold"`.

        Args:
            measured: values by name, a number or one for each replicate.

        Example:

        >>> claim = Claim("stops sooner", "38 %", "section 3", "sooner",
        ...               reproduced=(19, 100), sign=(0, 100))
        >>> [claim.verdict({"sooner": x}) for x in (25, [1, 3], -2, float("nan"))]
        ['reproduced', 'sign reproduced', 'not reproduced', 'not run']
        """
        values = np.atleast_1d(np.asarray(measured.get(self.value, np.nan), float))
        mean, low, high = interval(values)
        if np.isnan(mean):
            return "not run"
        words = ("reproduced", "sign reproduced", "not reproduced")
        if self.published == "open":
            words = ("holds", "not certain", "does not hold")
        needed = (low, high) if self._is_of_direction else (mean,)
        if all(_within(value, self.reproduced) for value in needed):
            return words[0]
        return words[1 if self.sign and _within(mean, self.sign) else 2]

    def format(self, measured: Mapping[str, Values]) -> str:
        """The measured value, with its standard deviation over the replicates."""
        values = np.atleast_1d(measured.get(self.value, np.nan))
        if np.isnan(values.mean()):
            return "not measured"
        unit = f" {self.unit}".rstrip()
        if len(values) == 1:
            return f"{values[0]:.4g}{unit}"
        digits = 2 if abs(values.mean()) < 100 else 0
        mean, deviation = values.mean(), values.std(ddof=1)
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}{unit} (n = {len(values)})"

    @property
    def counts(self) -> str:
        """Which values count as reproduced.

        >>> Claim("", "", "", "", reproduced=(0.5, INFINITY), unit="pp").counts
        'above 0.5 pp'
        >>> effect("", "", "", "", 0, "pp").counts
        '95 % interval above 0 pp'
        """
        low, high = self.reproduced
        unit = f" {self.unit}".rstrip()
        what = "95 % interval " if self._is_of_direction else ""
        if high == INFINITY:
            return f"{what}above {low:g}{unit}"
        if low == -INFINITY:
            return f"{what}up to {high:g}{unit}"
        return f"{what}{low:g} to {high:g}{unit}"

    @property
    def _is_of_direction(self) -> bool:
        return self.sign == self.reproduced


def effect(
    what: str, published: str, source: str, value: str, size: float, unit: str
) -> Claim:
    """A claim of an effect above zero, reproduced above half of its size.

    Args:
        what, published, source, value, unit: as of `Claim`.
        size: the published effect; 0 where a paper has a figure of curves alone: the
            claim is then one of direction alone.
    """
    return Claim(
        what, published, source, value, (size / 2, INFINITY), unit, sign=ABOVE_ZERO
    )


def _within(value: float, limits: Range) -> bool:
    return limits[0] < value <= limits[1]


@dataclass(frozen=True)
class Scale:
    """How large an experiment is run.

    Args:
        cost: how long it takes, in words.
        data: the data set's name.
        model: the network's name.
        recipe: its training.
        replicates: how often all is repeated.
        levels: rounds of pruning.
        report: the levels at which controls are trained; all by default.
        is_faithful: whether results at this scale say something on the claims.
    """

    cost: str
    data: str
    model: str
    recipe: Recipe
    replicates: int
    levels: int
    report: tuple[int, ...] | None = None
    is_faithful: bool = True


@dataclass(frozen=True)
class Experiment:
    """A paper's experiment.

    Args:
        name: what it is asked for by.
        title: what it shows, in a few words.
        paper: authors, year, title, and where it can be read.
        scales: `"smoke"` runs through everything in seconds, `"cpu"` takes minutes,
            `"paper"` has the paper's lengths.
        run: trains in a laboratory, which keeps tables and figures; returns what it
            measured, by name.
        claims: what the paper says of it.
    """

    name: str
    title: str
    paper: str
    scales: Mapping[str, Scale]
    run: Callable[["Lab"], Mapping[str, Values]]
    claims: tuple[Claim, ...]
