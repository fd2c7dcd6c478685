"""Trial pruning of a model's filters: the filters left, their cost and their loss."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.evaluation import evaluate, ready
from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    is_masked,
    mask_model,
    set_state,
)
from keras_lottery.masks import Masks
from keras_lottery.pruning import chosen
from keras_lottery.structured.smaller import Cost, Smaller
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores, largest
from keras_lottery.tickets.criteria import CriterionLike

MOST = 0.95
"""The largest share of its filters that a layer may lose."""


class Pruner:
    """Prunes the filters of a model on trial, and does not change the model.

    Args:
        model: a compiled model, masked or not.
        validation: (x, y) or a data set, on which the loss is computed.

    Attributes:
        model: the masked model.
        sizes: how many filters each layer has left.

    Raises:
        ValueError: if the model is not compiled, or has no filters to prune.
    """

    def __init__(self, model: keras.Model, validation: Any) -> None:
        checks.compiled("model", model)
        self.model = model if is_masked(model) else mask_model(model)
        self.masks = get_masks(self.model)
        self.state = get_state(self.model)
        self.smaller = Smaller(self.model)
        self.units = self.smaller.units
        left = self.units.left(self.masks)
        self.sizes = {name: int(mask.sum()) for name, mask in left.items()}
        self._total = {name: mask.size for name, mask in left.items()}
        self._validation = ready(self.model, validation)

    def scores(self, criterion: CriterionLike, data: Any, seed: int) -> Scores:
        """Returns a criterion's score of each filter, by layer."""
        score, _ = chosen(criterion, None, "filter")
        snapshot = Snapshot.untrained(
            self.masks,
            self.state,
            rng=np.random.default_rng(seed),
            shared_model=self.model,
            data=data,
            grouping=self.units,
        )
        return self.units.fold(score(snapshot), self.masks).scores

    def counts(self, rates: Mapping[str, float]) -> dict[str, int]:
        """Returns how many filters each layer keeps at these rates; at least one."""
        return {
            name: max(1, round(size * (1 - rates[name])))
            for name, size in self.sizes.items()
        }

    def cost(self, counts: Mapping[str, int]) -> Cost:
        """Returns the cost with these numbers of filters, whichever are kept."""
        kept = np.ones(self.units.count, bool)
        for name, groups in self.units.layers.items():
            kept[groups[counts[name] :]] = False
        return self.smaller.cost(kept)

    def within(self, rates: np.ndarray, budget: float, of: str) -> dict[str, int]:
        """Returns how many filters are left once raised rates meet a budget.

        Args:
            rates: a rate for each layer. All are raised by the same amount until the
                budget is met, so that only their differences matter.
            budget: the highest cost that the network may have.
            of: the field of `Cost` that the budget refers to.

        Raises:
            ValueError: if the budget cannot be met.
        """

        def counts(shift: float) -> dict[str, int]:
            shifted = np.clip(rates + shift, 0, MOST)
            return self.counts(dict(zip(self.sizes, shifted, strict=True)))

        low, high = -1.0, 1.0
        if getattr(self.cost(counts(high)), of) > budget:
            raise ValueError(
                f"Expected a target that filters can meet: with {1 - MOST:.0%} of them "
                f"in each layer the model has {self.cost(counts(high))}. Received: a "
                f"budget of {budget:.4g} {of}. Choose a larger target."
            )
        while high - low > 1e-3:
            middle = (low + high) / 2
            if getattr(self.cost(counts(middle)), of) > budget:
                low = middle
            else:
                high = middle
        return counts(high)

    def pruned(self, scores: Scores, counts: Mapping[str, int]) -> Masks:
        """Returns masks that keep the best filters, `counts` of each layer."""
        groups = self.units.fold(scores, self.masks)
        kept: dict[str, np.ndarray] = {}
        for name, count in counts.items():
            kept |= largest(groups.scores, {name: groups.masks[name]}, count)
        return groups.unfold(Masks(kept))

    def rates(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Returns the sparsities that `prune` takes for these numbers of filters."""
        return {name: 1 - count / self._total[name] for name, count in counts.items()}

    def loss(self, masks: Masks) -> float:
        """Returns the validation loss under masks."""
        set_state(self.model, self.state, masks)
        try:
            return float(evaluate(self.model, self._validation)["loss"])
        finally:
            set_state(self.model, self.state, self.masks)
