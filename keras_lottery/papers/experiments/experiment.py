"""Experiments: trainings at a scale, and the claims that they test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.data import Splits
from keras_lottery.papers.models import Recipe
from keras_lottery.search.paired import interval

if TYPE_CHECKING:
    import keras

    from keras_lottery.papers.experiments.lab import Lab

Values = float | Sequence[float] | np.ndarray
"""A number, or one for each replicate."""

Range = tuple[float, float]
"""Values above the first number, up to the second."""

INFINITY = float("inf")
ABOVE_ZERO: Range = (0.0, INFINITY)


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and the measured values that agree with it.

    Args:
        what: the claim, in a short sentence.
        published: the published figure, or the words if there is no figure; `"open"`
            for a question that no paper has answered.
        source: where it was published.
        value: the name of the measured value.
        reproduced: the range of values that counts as reproduced.
        unit: the unit of the value.
        sign: the range of values that at least have the right direction, or `None`.
            For a claim about the direction only, it is the same as `reproduced`.
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

        A claim is reproduced if the mean over replicates is in the range `reproduced`
        and the whole 95 % confidence interval of the mean is in the range `sign`, if
        there is one. The sign is reproduced if only the mean is in that range. For an
        open question, the words are `"holds"`, `"not certain"` and `"does not hold"`.

        Args:
            measured: values by name, a number or one for each replicate. NaN stands for
                a replicate that diverged, and is left out.

        Example:

        >>> claim = Claim("stops sooner", "38 %", "section 3", "sooner",
        ...               reproduced=(19, 100), sign=(0, 100))
        >>> for sooner in ([24, 26], [1, 60], [-2, -4], float("nan")):
        ...     claim.verdict({"sooner": sooner})
        'reproduced'
        'sign reproduced'
        'not reproduced'
        'not run'
        """
        mean, low, high = interval(self._values(measured)[0])
        if np.isnan(mean):
            return "not run"
        words = ("reproduced", "sign reproduced", "not reproduced")
        if self.published == "open":
            words = ("holds", "not certain", "does not hold")
        has_sign = self.sign is None or (
            _within(low, self.sign) and _within(high, self.sign)
        )
        if _within(mean, self.reproduced) and has_sign:
            return words[0]
        return words[1 if self.sign and _within(mean, self.sign) else 2]

    def format(self, measured: Mapping[str, Values]) -> str:
        """The measured value as text, with its standard deviation over replicates."""
        values, diverged = self._values(measured)
        if not len(values):
            return "not measured"
        unit = f" {self.unit}".rstrip()
        if len(values) == 1 and not diverged:
            return f"{values[0]:.4g}{unit}"
        digits = 2 if abs(values.mean()) < 100 else 0
        mean = f"{values.mean():.{digits}f}"
        if len(values) > 1:
            mean += f" ± {values.std(ddof=1):.{digits}f}"
        left_out = f", {diverged} not a number" if diverged else ""
        return f"{mean}{unit} (n = {len(values)}{left_out})"

    @property
    def counts(self) -> str:
        """The values that count as reproduced, in words.

        >>> Claim("", "", "", "", reproduced=(0.5, INFINITY), unit="pp").counts
        'above 0.5 pp'
        >>> effect("", "", "", "", 3, "pp").counts
        'above 1.5 pp, 95 % interval above 0 pp'
        """
        if self.sign is None:
            return self._in_words(self.reproduced)
        interval = f"95 % interval {self._in_words(self.sign)}"
        if self.sign == self.reproduced:
            return interval
        return f"{self._in_words(self.reproduced)}, {interval}"

    def _in_words(self, limits: Range) -> str:
        low, high = limits
        unit = f" {self.unit}".rstrip()
        if high == INFINITY:
            return f"above {low:g}{unit}"
        if low == -INFINITY:
            return f"up to {high:g}{unit}"
        return f"{low:g} to {high:g}{unit}"

    def _values(self, measured: Mapping[str, Values]) -> tuple[np.ndarray, int]:
        """The measured values, and how many replicates diverged."""
        values = np.atleast_1d(np.asarray(measured.get(self.value, np.nan), float))
        is_left = ~np.isnan(values)
        return values[is_left], int((~is_left).sum())


def effect(
    what: str, published: str, source: str, value: str, size: float, unit: str
) -> Claim:
    """A claim of a positive effect, whose mean has to be above half of its size.

    Args:
        what, published, source, value, unit: same as in `Claim`.
        size: the published effect; 0 if the paper only shows curves, which makes it a
            claim about the direction only.
    """
    return Claim(
        what, published, source, value, (size / 2, INFINITY), unit, sign=ABOVE_ZERO
    )


def _within(value: float, limits: Range) -> bool:
    return limits[0] < value <= limits[1]


@dataclass(frozen=True)
class Scale:
    """The size of an experiment.

    Args:
        cost: how long it takes, in words.
        data: the data set's name, or a function that loads it.
        model: the network's name, or a function `(input_shape, classes) -> model`.
        recipe: how the network is trained.
        replicates: how often everything is repeated.
        levels: rounds of pruning.
        report: the levels at which controls are trained; all by default.
        is_faithful: whether results at this scale can test the claims.
    """

    cost: str
    data: str | Callable[[], Splits]
    model: "str | Callable[..., keras.Model]"
    recipe: Recipe
    replicates: int
    levels: int
    report: tuple[int, ...] | None = None
    is_faithful: bool = True

    @property
    def is_narrow(self) -> bool:
        """Whether claims are tested on a smaller network than the paper's."""
        return self.is_faithful and callable(self.model)


@dataclass(frozen=True)
class Experiment:
    """A paper's experiment.

    Args:
        name: its name on the command line.
        title: what it shows, in a few words.
        paper: authors, year, title, and where to read it.
        scales: `"smoke"` runs through everything in seconds, `"cpu"` takes minutes,
            `"paper"` trains as long as the paper.
        run: trains in a lab, which keeps tables and figures; returns measured values by
            name.
        claims: the paper's claims.
    """

    name: str
    title: str
    paper: str
    scales: Mapping[str, Scale]
    run: Callable[["Lab"], Mapping[str, Values]]
    claims: tuple[Claim, ...]
