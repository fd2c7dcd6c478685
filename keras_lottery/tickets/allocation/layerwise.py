"""A ranking within each layer, at one pruning rate for all layers or one for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.optimize import brentq

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.counts import (
    check_count,
    keep_by_layer,
    kept_after,
)
from keras_lottery.tickets.allocation.names import check_patterns, included, matches
from keras_lottery.tickets.allocation.protocol import Allocation
from keras_lottery.tickets.allocation.ranking import Scores

Sparsity = float | Mapping[str, float]
"""The types of `sparsity=`: one for the network, or one per layer by name pattern."""


def check_shares(argument: str, sparsity: Mapping[str, float]) -> None:
    """Raises ValueError unless the mapping gives a share for each name pattern."""
    if not sparsity:
        checks.refuse(argument, "a share, or shares by pattern of layers", sparsity)
    checks.names(argument, sparsity, "shares by pattern of layers or weights")
    for pattern, share in sparsity.items():
        checks.fraction(f"{argument}[{pattern!r}]", share)


@dataclass(frozen=True)
class Layerwise(Allocation):
    """Prunes each layer at its own rate: after k rounds its density is (1 - r)^k.

    Within a layer the largest scores are kept. k need not be a whole number: it is
    chosen to give the requested sparsity of the whole network.

    Args:
        rates: pattern of weight or layer name to its rate per round; the first match
            counts. Layers that match no pattern are pruned at `rate`.
        rate: the other layers' rate per round.
        exclude: patterns of weights or layers that are not pruned.

    Reference:
        Frankle & Carbin 2019, figure 2: LeNet-300-100 with 20 % a round and 10 % for
        the output layer.

    Example:

    >>> import numpy as np
    >>> masks = Masks.dense({"hidden/kernel": (10, 10), "output/kernel": (10, 4)})
    >>> scores = {name: np.arange(mask.size).reshape(mask.shape)
    ...           for name, mask in masks.items()}
    >>> allocation = Layerwise({"output": 0.1}, rate=0.2)
    >>> sparsity = allocation.total_sparsity(0.2, masks)
    >>> pruned = allocation(scores, masks, sparsity)
    >>> [int(mask.sum()) for mask in pruned.values()]
    [80, 36]
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.2
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.instance("rates", self.rates, Mapping, "rates by pattern of names")
        for name, rate in self.rates.items():
            checks.fraction(f"rates[{name!r}]", rate)
        checks.fraction("rate", self.rate)

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        keep = kept_after(masks, sparsity)
        check_count(keep, masks.kept, sparsity, masks)
        rounds = self._rounds(keep, masks)
        return keep_by_layer(scores, masks, keep, self._shares(rounds, masks))

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        """Returns the network's sparsity if layers pruned at `rate` have `sparsity`."""
        if not self.rate:
            raise ValueError(
                "A schedule of rates needs layers that are pruned at `rate`. Received: "
                "rate=0. Give the sparsities themselves, such as schedule=[0.5, 0.75]."
            )
        rounds = math.log(1 - sparsity) / math.log(1 - self.rate)
        return 1 - sum(self._shares(rounds, masks).values()) / masks.size

    def _layer_rates(self, masks: Masks) -> dict[str, float]:
        check_patterns(self.rates, masks)
        prunable = included(masks, self.exclude)
        rates = {}
        for name in masks:
            own = [rate for p, rate in self.rates.items() if matches(name, p)]
            rates[name] = [*own, self.rate][0] if name in prunable else 0.0
        return rates

    def _shares(self, rounds: float, masks: Masks) -> dict[str, float]:
        """Returns how many weights, not rounded, each layer keeps after `rounds`."""
        return {
            # A layer may have fewer left already, if something else pruned it.
            name: min(masks[name].size * (1 - rate) ** rounds, masks[name].sum())
            for name, rate in self._layer_rates(masks).items()
        }

    def _rounds(self, keep: int, masks: Masks) -> float:
        def excess(rounds: float) -> float:
            return sum(self._shares(rounds, masks).values()) - keep

        upper = 1.0
        # If some layers are not pruned, the excess may approach zero only at infinity.
        while excess(upper) > 0 and upper < 1e6:
            upper *= 2
        if excess(upper) > 0.5:
            raise ValueError(
                f"Expected a sparsity that the rates can reach. Received: {keep} "
                f"of {masks.size} weights to keep, rates={self._layer_rates(masks)}"
            )
        return brentq(excess, 0, upper, xtol=1e-12) if excess(upper) < 0 else upper


@dataclass(frozen=True)
class LayerSparsities(Layerwise):
    """Gives each layer its own sparsity, which is its rate in a single round.

    At a lower sparsity, as `GradualPruning` asks for on the way, it prunes a fraction
    of a round.
    """

    @classmethod
    def of(cls, shares: Mapping[str, float], masks: Masks) -> "LayerSparsities":
        """Makes one from shares by pattern; layers that match none are not scored."""
        others = [n for n in masks if not any(matches(n, p) for p in shares)]
        return cls(shares, rate=0, exclude=others)

    def sparsity(self, masks: Masks) -> float:
        """Returns the network's sparsity after the round, which revives no weights."""
        return 1 - sum(self._shares(1, masks).values()) / masks.size

    def _rounds(self, keep: int, masks: Masks) -> float:
        # Rounding to whole numbers moves the sum by at most this.
        whole = abs(sum(self._shares(1, masks).values()) - keep) <= 0.5 + 1e-6
        return 1.0 if whole else super()._rounds(keep, masks)


@dataclass(frozen=True)
class Uniform(Allocation):
    """Gives every layer the same sparsity.

    Args:
        exclude: patterns of weights or layers that are not pruned.
    """

    exclude: Sequence[str] = ()

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        return Layerwise(exclude=self.exclude)(scores, masks, sparsity)
