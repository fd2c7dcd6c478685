"""The objective by which trainings are compared: a metric and its direction."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.internals.metrics import direction_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Objective:
    """A metric that the model reports, and whether a higher or lower value is better.

    Args:
        name: the metric on the validation data, named as in Keras's logs:
            `"val_accuracy"`, `"val_mae"`, `"val_loss"`, or, for one of several outputs,
            `"val_<output>_<metric>"`.
        direction: `"max"` or `"min"`; needed only for metrics of your own, since Keras
            knows the direction of its metrics.

    Raises:
        ValueError: if the name does not begin with `"val_"`, or the direction is
            something else.

    Example:

    >>> Objective("val_mae", "min").metric
    'mae'
    """

    name: str
    direction: str | None = None

    def __post_init__(self) -> None:
        form = "the name of a metric on the validation data, such as 'val_accuracy'"
        if not isinstance(self.name, str) or not self.name.startswith("val_"):
            checks.refuse("name", form, self.name, "It is the name of an `objective`.")
        checks.choice("direction", self.direction, (None, "min", "max"))

    @property
    def metric(self) -> str:
        """The metric's name without `"val_"`, as `model.evaluate` reports it."""
        return self.name.removeprefix("val_")

    @property
    def words(self) -> str:
        """The metric's name in words."""
        return self.metric.replace("_", " ")

    @property
    def is_share(self) -> bool:
        """Whether the metric is an accuracy, which people read in percent."""
        return "acc" in self.metric

    @property
    def scale(self) -> int:
        """The factor by which the metric is multiplied for display: 100 for percent."""
        return 100 if self.is_share else 1

    @property
    def unit(self) -> str:
        """The unit that is shown after the name of the scaled metric.

        >>> Objective("val_accuracy").unit, Objective("val_mae").unit
        (' (%)', '')
        """
        return " (%)" if self.is_share else ""

    def text(self, values: "pd.Series") -> str:
        """The mean and standard deviation of several trainings, as text.

        >>> import pandas as pd
        >>> Objective("val_accuracy").text(pd.Series([0.97, 0.98]))
        '97.50 ± 0.71 %'
        >>> Objective("val_mae").text(pd.Series([2.5]))
        '2.5'
        """
        form, unit = (".2f", " %") if self.is_share else (".4g", "")
        values = self.scale * values
        spread = f" ± {values.std():{form}}" if len(values) > 1 else ""
        return f"{values.mean():{form}}{spread}{unit}"

    def amount(self, difference: float) -> str:
        """The difference of two values, as text.

        >>> Objective("val_accuracy").amount(0.005), Objective("val_mae").amount(0.005)
        ('0.5 pp', '0.005')
        """
        form, unit = (".3g", " pp") if self.is_share else (".4g", "")
        return f"{self.scale * difference:{form}}{unit}"

    def signed(self, difference: float) -> str:
        """Same as `amount`, with the sign and two decimals of a percentage.

        >>> Objective("val_accuracy").signed(0.0042), Objective("val_mae").signed(-0.01)
        ('+0.42 pp', '−0.01')
        """
        form, unit = ("+.2f", " pp") if self.is_share else ("+.4g", "")
        text = f"{self.scale * difference:{form}}{unit}"
        return text.replace("-", "\N{MINUS SIGN}")

    def value(self, value: float) -> str:
        """One value, as text.

        >>> Objective("val_accuracy").value(0.975), Objective("val_mae").value(2.5)
        ('97.50 %', '2.5')
        """
        return f"{100 * value:.2f} %" if self.is_share else f"{value:.4g}"

    def gain(self, value: Any, over: Any) -> Any:
        """How much better a value is than another; negative if it is worse.

        >>> float(Objective("val_mae", "min").gain(0.25, over=0.5))
        0.25
        """
        return (-1 if self.direction == "min" else 1) * (value - over)

    def best(self, values: "pd.Series") -> Any:
        """The index of the best value."""
        return self.gain(values, 0).idxmax()

    def column(self, when: str, part: str = "val") -> str:
        """The column of results that holds the metric.

        Args:
            when: `"early_stop"` or `"final"`.
            part: `"val"`, `"test"` or `"train"`.

        >>> Objective("val_accuracy").column("early_stop", "test")
        'early_stop_test_accuracy'
        """
        return f"{when}_{part}_{self.metric}"


ACCURACY = Objective("val_accuracy", "max")


def named(objective: str | Objective) -> Objective:
    """The objective with this name; its direction is set if the name implies it."""
    if isinstance(objective, str):
        objective = Objective(objective)
    if not isinstance(objective, Objective):
        raise ValueError(
            "Expected `objective` to be a name such as 'val_accuracy', or an "
            f"`Objective`. Received: objective={objective!r}"
        )
    if objective.direction is None and objective.is_share:
        return dataclasses.replace(objective, direction="max")
    if objective.direction is None and objective.metric.endswith("loss"):
        return dataclasses.replace(objective, direction="min")
    return objective


def resolve(
    objective: str | Objective | None, model: keras.Model, logs: Mapping[str, Any]
) -> Objective:
    """Resolves the `objective` argument to an `Objective` with its direction.

    Args:
        objective: same as in `LotteryTicketSearch`; `None` is the model's accuracy.
        model: a compiled model.
        logs: the metrics that the model reported in an evaluation.

    Raises:
        ValueError: if the model reports no such metric, or no single number for it, if
            it reports several accuracies and none is named, or if the metric's
            direction is not known.
    """
    reported = [f"val_{name}" for name in logs]
    found = named(_accuracy(model, reported) if objective is None else objective)
    if found.name not in reported:
        hint = checks.did_you_mean(found.name, reported)
        raise ValueError(
            f"Expected `objective` to be one of the model's metrics, {reported}. "
            f"Received: objective={found.name!r}. {hint}"
        )
    if np.ndim(logs[found.metric]):
        raise ValueError(
            "Expected an objective that is a single number. Received: "
            f"{found.name!r}, of shape {np.shape(logs[found.metric])}. Average it, as "
            "in `keras.metrics.F1Score(average='macro')`."
        )
    if found.direction is None:
        found = dataclasses.replace(found, direction=direction_of(model, found.metric))
    if found.direction is None:
        raise ValueError(
            f"Expected the direction of the metric {found.metric!r}, which Keras does "
            f"not know. Use objective=Objective({found.name!r}, 'max'), or 'min'."
        )
    return found


def _accuracy(model: keras.Model, reported: list[str]) -> str:
    """The name of the accuracy that a model reports."""
    accuracies = [name for name in reported if "acc" in name]
    if not accuracies:
        raise ValueError(
            "Expected `objective`, since the model reports no accuracy. Received: "
            f"objective=None. Choose one of {reported}, or compile the model with "
            "`metrics=['accuracy']`."
        )
    outputs = len(keras.tree.flatten(getattr(model, "outputs", None)))
    if len(accuracies) > 1 and outputs > 1:
        raise ValueError(
            "Expected `objective`, since the model has several outputs and reports "
            f"{accuracies}. Received: objective=None. Choose one, such as "
            f"objective={accuracies[0]!r}."
        )
    return ACCURACY.name if ACCURACY.name in accuracies else accuracies[0]
