"""The rule of `Normalization`, whose statistics come from data it was adapted to."""

from typing import Any

from keras_lottery.structured.rules.per_channel import Computed
from keras_lottery.structured.rules.rule import Keep, Weights, array_of


class Standardized(Computed):
    """The rule of `Normalization`: the smaller layer gets the statistics that stay."""

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        kept = keep(self.calls[0].inputs[0])
        if kept.all() or not self.layer.axis:
            return {}, {}
        statistics = {"mean": self.layer.mean, "variance": self.layer.variance}
        return {
            name: array_of(array).ravel()[kept].tolist()
            for name, array in statistics.items()
        }, {}
