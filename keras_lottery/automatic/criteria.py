"""A criterion of filters for each layer, chosen by the validation loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.automatic.pruner import Pruner
from keras_lottery.engines.fits import part_of
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.layers import is_masked, mask_model
from keras_lottery.pruning import chosen
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores

MENU_FORM = "a list of names of criteria of filters, at least one"
MENU = ("l1", "l2", "fpgm", "activation")


@dataclass(frozen=True)
class Choice:
    """A criterion that scores each layer by a criterion of its own, for `prune`.

    Attributes:
        criteria: the criterion's name, by layer; the names of tied layers are joined by
            `+`.
        sparsity: the share of all its filters that each layer loses, by layer, for
            `prune`; filters that the model had lost before are counted.
        loss: the validation loss under this choice, without training.
        alone: the validation loss of each criterion when all layers use it.
    """

    criteria: Mapping[str, str]
    sparsity: Mapping[str, float]
    loss: float
    alone: Mapping[str, float]

    def __call__(self, snapshot: Snapshot) -> Scores:
        """Scores each filter by the criterion of its layer."""
        found = {
            name: snapshot.grouping.fold(
                chosen(name, None, "filter")[0](snapshot), snapshot.masks
            ).scores
            for name in sorted(set(self.criteria.values()))
        }
        return {layer: found[name][layer] for layer, name in self.criteria.items()}


def choose_criteria(
    model: keras.Model,
    target: float,
    data: Any,
    validation_data: Any,
    *,
    criteria: Sequence[str] = MENU,
    rounds: int = 2,
    seed: int = 0,
) -> Choice:
    """Chooses the criterion of filters for each layer by the validation loss.

    All layers lose the same share of their remaining filters, which is chosen to meet
    the target. The search starts from the best single criterion. Each layer in turn
    then takes the criterion under which the pruned network's loss is lowest. The loss
    is therefore never higher than that of the best single criterion. The paper learns
    this choice by Gumbel-softmax, with gradients of the validation loss; here each
    criterion is tried. The model is not changed.

    Args:
        model: a compiled Sequential or Functional model, masked or not.
        target: the largest share of the multiply-adds that may be left.
        data: (x, y) or a data set, for the criteria that need data, see `prune`; `None`
            if none does.
        validation_data: (x, y) or a data set that makes the choice. Because it chooses
            among many, evaluate the result on other data.
        criteria: the criteria to choose from, names of `filter_criteria` or `criteria`.
        rounds: how often each layer may change its criterion at most; the search ends
            when no layer does.
        seed: the seed of criteria that draw random numbers.

    Raises:
        ValueError: if an argument is not one of its choices, the model cannot be
            pruned, or the target cannot be met.

    Reference:
        He et al. 2020, "Learning filter pruning criteria for deep convolutional neural
        networks acceleration".

    Example:

    ```python
    choice = kl.automatic.choose_criteria(model, 0.5, train, validation)
    masked = kl.mask_model(model)
    kl.prune(masked, choice.sparsity, choice, granularity="filter", data=train)
    ```
    """
    keras_checks.compiled("model", model)
    menu = checks.names("criteria", criteria, MENU_FORM)
    if not menu:
        checks.refuse("criteria", MENU_FORM, criteria)
    for name in menu:
        chosen(name, None, "filter")
    checks.number("target", target, above=0, most=1)
    checks.count("rounds", rounds, 1)
    checks.seed("seed", seed)
    masked = model if is_masked(model) else mask_model(model)
    pruner = Pruner(masked, part_of("validation_data", masked, validation_data))
    budget = target * pruner.cost(pruner.sizes).multiply_adds
    counts = pruner.within(np.zeros(len(pruner.sizes)), budget, "multiply_adds")
    scores = {name: pruner.scores(name, data, seed) for name in menu}

    def loss(by_layer: Mapping[str, str]) -> float:
        mixed = {layer: scores[name][layer] for layer, name in by_layer.items()}
        return pruner.loss(pruner.pruned(mixed, counts))

    alone = {name: loss(dict.fromkeys(pruner.sizes, name)) for name in menu}
    best = min(alone, key=alone.__getitem__)
    found, least = dict.fromkeys(pruner.sizes, best), alone[best]
    for _ in range(rounds):
        before = dict(found)
        for layer in found:
            for name in menu:
                tried = {**found, layer: name}
                if name != found[layer] and (now := loss(tried)) < least:
                    found, least = tried, now
        if found == before:
            break
    return Choice(found, pruner.rates(counts), least, alone)
