"""How masks are made of scores: the kinds of learned masks."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_lottery import checks


@dataclass(frozen=True)
class Bernoulli:
    """A weight is kept with probability p = sigmoid(score), drawn again at each call.

    Without a draw, those with p > 0.5 are kept. The gradient goes straight through
    the draw: ∂mask/∂p = 1. It goes through the factor of `rescale` as well, as in the
    authors' code: a score is told that its weight makes the others smaller.

    Reference:
        Zhou et al. 2019, "Deconstructing lottery tickets", section 5.2.
    """

    def initial_scores(self, shape: tuple[int, ...], seed: Any) -> Any:
        """p = 0.5 with a little noise, so that half are kept, drawn or not."""
        return keras.random.normal(shape, stddev=1e-3, seed=seed)

    def mask(self, scores: Any, alive: Any, seed: Any = None) -> Any:
        """Zeros and ones that have a gradient.

        Args:
            scores: a tensor of floats.
            alive: booleans of its shape; what is not alive is not kept.
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
        """Keeps the sum of a unit's weights: N_total / N_kept, with its gradient."""
        return 1 / _density(mask, alive)


@dataclass(frozen=True)
class EdgePopup:
    """The weights of the highest scores are kept, the same share in each layer.

    Of equal scores the earlier position is kept. The gradient goes straight through
    the choice: ∂mask/∂score = 1. (The authors' code ranks |score|.)

    Args:
        sparsity: the share of each layer's weights that is left out.

    Reference:
        Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?",
        section 3.
    """

    sparsity: float = 0.5

    def __post_init__(self) -> None:
        checks.fraction("sparsity", self.sparsity)

    def initial_scores(self, shape: tuple[int, ...], seed: Any) -> Any:
        """Uniform between ±1/√inputs, as in the paper's code."""
        initializer = keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform", seed=seed
        )
        return initializer(shape)

    def kept(self, size: int) -> int:
        """How many of a layer's weights are kept."""
        return round(size * (1 - self.sparsity))

    def mask(self, scores: Any, alive: Any, seed: Any = None) -> Any:
        """Zeros and ones that have a gradient. Arguments are those of `Bernoulli`."""
        size = math.prod(scores.shape)
        count = self.kept(size)
        ranked = ops.reshape(ops.where(alive, scores, -math.inf), (size,))
        # Stable, unlike `top_k` on torch: of equals, the earlier ones are kept.
        best = ops.argsort(ops.negative(ranked))[:count]
        ones = ops.ones((count,), scores.dtype)
        kept = ops.scatter(ops.expand_dims(best, 1), ones, (size,))
        kept = ops.reshape(ops.greater(kept, 0), tuple(scores.shape))
        return _straight_through(ops.logical_and(kept, alive), scores)

    def factor(self, mask: Any, alive: Any) -> Any:
        """Keeps the variance of what a unit receives: √(N_total / N_kept).

        A constant: however scores change, as many weights are kept.
        """
        return ops.stop_gradient(1 / ops.sqrt(_density(mask, alive)))


Kind = Bernoulli | EdgePopup

KINDS = ("bernoulli", "edge_popup")
"""The kinds' names."""


def kind_of(name: str, sparsity: float | None) -> Kind:
    """The kind of that name.

    Raises:
        ValueError: if there is no such kind, or it takes no such sparsity.
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
    """The share of the weights alive that a mask of zeros and ones keeps."""
    kept = ops.sum(ops.cast(mask, "float32"))
    # A layer that keeps nothing has no factor.
    return ops.maximum(kept, 1) / ops.cast(ops.count_nonzero(alive), "float32")


def _straight_through(kept: Any, scores: Any) -> Any:
    """Exactly `kept`, with the gradient of `scores`."""
    zero = ops.subtract(scores, ops.stop_gradient(scores))
    return ops.add(ops.cast(kept, scores.dtype), zero)
