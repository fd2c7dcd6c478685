"""The kinds of learned masks, each of which computes masks from scores."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_lottery import checks


@dataclass(frozen=True)
class Bernoulli:
    """A weight is kept with probability p = sigmoid(score), drawn again at each call.

    Without a draw, weights with p > 0.5 are kept. The gradient goes straight through
    the draw: ∂mask/∂p = 1. As in the authors' code, it also goes through the factor of
    `rescale`: the gradient of a score includes that keeping its weight makes the others
    smaller.

    Reference:
        Zhou et al. 2019, "Deconstructing lottery tickets", section 5.2.
    """

    def initial_scores(self, shape: tuple[int, ...], seed: Any) -> Any:
        """Scores near p = 0.5, so that half are kept, with or without draws."""
        return keras.random.normal(shape, stddev=1e-3, seed=seed)

    def mask(self, scores: Any, alive: Any, seed: Any = None) -> Any:
        """The mask of zeros and ones, with a gradient with respect to the scores.

        Args:
            scores: a tensor of floats.
            alive: booleans of the same shape; weights that are not alive are never
                kept.
            seed: a `keras.random.SeedGenerator` to draw with.
        """
        probability = ops.sigmoid(scores)
        if seed is None:
            kept = ops.greater(scores, 0)
        else:
            kept = ops.less(
                keras.random.uniform(
                    tuple(scores.shape), dtype=scores.dtype, seed=seed
                ),
                probability,
            )
        return _straight_through(ops.logical_and(kept, alive), probability)

    def factor(self, mask: Any, alive: Any) -> Any:
        """The factor N_total / N_kept, with its gradient.

        It preserves the sum of a unit's weights.
        """
        return 1 / _density(mask, alive)


@dataclass(frozen=True)
class EdgePopup:
    """Keeps the weights with the highest scores, the same share in each layer.

    Of equal scores, the earlier ones are kept. The gradient goes straight through
    the choice: ∂mask/∂score = 1. (The authors' code ranks |score|.)

    Args:
        sparsity: the share of each layer's weights that is pruned.

    Reference:
        Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?",
        section 3.
    """

    sparsity: float = 0.5

    def __post_init__(self) -> None:
        checks.fraction("sparsity", self.sparsity)

    def initial_scores(self, shape: tuple[int, ...], seed: Any) -> Any:
        """Uniform scores between ±1/√inputs, as in the paper's code."""
        initializer = keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform", seed=seed
        )
        return initializer(shape)

    def kept(self, size: int) -> int:
        """How many of a layer's weights are kept."""
        return round(size * (1 - self.sparsity))

    def mask(self, scores: Any, alive: Any, seed: Any = None) -> Any:
        """Same as `Bernoulli.mask`; `seed` has no effect."""
        size = math.prod(scores.shape)
        count = self.kept(size)
        ranked = ops.reshape(ops.where(alive, scores, -math.inf), (size,))
        # The sort is stable, unlike `top_k` on torch: of equal scores, it keeps the
        # earlier ones.
        best = ops.argsort(ops.negative(ranked))[:count]
        ones = ops.ones((count,), scores.dtype)
        kept = ops.scatter(ops.expand_dims(best, 1), ones, (size,))
        kept = ops.reshape(ops.greater(kept, 0), tuple(scores.shape))
        return _straight_through(ops.logical_and(kept, alive), scores)

    def factor(self, mask: Any, alive: Any) -> Any:
        """The factor √(N_total / N_kept), which preserves a unit's input variance.

        It is constant, because the number of kept weights does not depend on scores.
        """
        return ops.stop_gradient(1 / ops.sqrt(_density(mask, alive)))


Kind = Bernoulli | EdgePopup

KINDS = ("bernoulli", "edge_popup")
"""The names of the kinds."""


def kind_of(name: str, sparsity: float | None) -> Kind:
    """Makes the kind with this name.

    Raises:
        ValueError: if there is no such kind, or it does not accept the sparsity.
    """
    checks.choice("kind", name, KINDS)
    if name == "edge_popup":
        return EdgePopup() if sparsity is None else EdgePopup(sparsity)
    if sparsity is not None:
        raise ValueError(
            "Masks of kind 'bernoulli' learn how many weights they keep. Received: "
            f"sparsity={sparsity}. Leave it out, or choose kind='edge_popup'."
        )
    return Bernoulli()


def _density(mask: Any, alive: Any) -> Any:
    """The share of live weights that a mask of zeros and ones keeps."""
    kept = ops.sum(ops.cast(mask, "float32"))
    # At least one counts, so that a layer that keeps nothing has a finite factor.
    return ops.maximum(kept, 1) / ops.cast(ops.count_nonzero(alive), "float32")


def _straight_through(kept: Any, scores: Any) -> Any:
    """Returns exactly `kept`, with the gradient of `scores`."""
    zero = ops.subtract(scores, ops.stop_gradient(scores))
    return ops.add(ops.cast(kept, scores.dtype), zero)
