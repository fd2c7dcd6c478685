"""How many weights each layer keeps, and which: `(scores, masks, sparsity) -> masks`.

`sparsity` is always the share of all the weights in `masks`, those of layers that are
left out included. Counts are exact, ties go to the earlier position, and a pruned
weight stays pruned.
"""

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy.optimize import brentq

from keras_lottery.masks import Masks
from keras_lottery.registry import look_up

Scores = Mapping[str, np.ndarray]


class Allocation(Protocol):
    """What `prune` and the search call. Any such function will do."""

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks: ...


@dataclass(frozen=True)
class Global:
    """Keeps the weights of the largest scores, whichever layer they are in.

    Args:
        exclude: patterns of weights or layers that are not pruned.
    """

    exclude: Sequence[str] = ()

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        names = included(masks, self.exclude)
        keep = kept_after(masks, sparsity) - sum(
            int(np.count_nonzero(masks[name])) for name in masks if name not in names
        )
        flat = np.concatenate([np.ravel(scores[name]) for name in names])
        alive = np.concatenate([np.ravel(masks[name]) for name in names])
        _check_count(keep, int(np.count_nonzero(alive)), sparsity, masks)
        parts = np.split(
            largest(flat, alive, keep), np.cumsum([masks[name].size for name in names])
        )
        chosen = {
            name: part.reshape(masks[name].shape)
            for name, part in zip(names, parts, strict=False)
        }
        return Masks({name: chosen.get(name, masks[name]) for name in masks})

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        """The whole network's sparsity if the layers not left out have `sparsity`."""
        names = included(masks, self.exclude)
        return sparsity * sum(masks[name].size for name in names) / masks.size


@dataclass(frozen=True)
class Layerwise:
    """Prunes each layer at its own rate: after k rounds its density is (1 - r)^k.

    Within a layer the largest scores are kept. k need not be whole: it is what makes
    the whole network's sparsity the one that is asked for.

    Args:
        rates: pattern of weight or layer name to its rate per round; the first match
            counts. Layers that match none have `rate`.
        rate: the other layers' rate per round.
        exclude: patterns of weights or layers that are not pruned.

    Reference:
        Frankle & Carbin 2019, figure 2: LeNet-300-100 with 20 % a round and 10 % for
        the output layer.

    Example:

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
        for name, rate in [*self.rates.items(), ("rate", self.rate)]:
            if not 0 <= rate < 1:
                raise ValueError(
                    f"Expected rates from 0 to below 1. Received: {name}={rate}"
                )

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        keep = kept_after(masks, sparsity)
        _check_count(keep, masks.kept, sparsity, masks)
        rounds = self._rounds(keep, masks)
        return _keep_by_layer(scores, masks, keep, self._shares(rounds, masks))

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        """The whole network's sparsity if layers pruned at `rate` have `sparsity`."""
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
        """How many weights, not rounded, each layer keeps after `rounds`."""
        return {
            # It may have fewer already, if it was pruned by other means.
            name: min(masks[name].size * (1 - rate) ** rounds, masks[name].sum())
            for name, rate in self._layer_rates(masks).items()
        }

    def _rounds(self, keep: int, masks: Masks) -> float:
        def excess(rounds: float) -> float:
            return sum(self._shares(rounds, masks).values()) - keep

        upper = 1.0
        while excess(upper) > 0.5:
            upper *= 2
            if upper > 1e6:
                raise ValueError(
                    f"Expected a sparsity that the rates can reach. Received: {keep} "
                    f"of {masks.size} weights to keep, rates={self._layer_rates(masks)}"
                )
        return brentq(excess, 0, upper, xtol=1e-12) if excess(upper) < 0 else upper


@dataclass(frozen=True)
class Uniform:
    """Gives every layer the same sparsity.

    Args:
        exclude: patterns of weights or layers that are not pruned.
    """

    exclude: Sequence[str] = ()

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        return Layerwise(exclude=self.exclude)(scores, masks, sparsity)

    def total_sparsity(self, sparsity: float, masks: Masks) -> float:
        """The whole network's sparsity if the layers not left out have `sparsity`."""
        return Global(self.exclude).total_sparsity(sparsity, masks)


ALLOCATIONS: dict[str, Allocation] = {
    "global": Global(),
    "layerwise": Layerwise(),
    "uniform": Uniform(),
}


def get(allocation: str | Allocation) -> Allocation:
    """An allocation by name, or the one given.

    Raises:
        ValueError: if the name is unknown.

    >>> get("global")
    Global(exclude=())
    """
    form = "a function (scores, masks, sparsity) -> masks"
    return look_up("allocation", allocation, ALLOCATIONS, form)


def largest(scores: np.ndarray, alive: np.ndarray, keep: int) -> np.ndarray:
    """Marks the `keep` largest scores among those alive; of equals, the first.

    Args:
        scores: array of shape (n,).
        alive: booleans of shape (n,); the others are never chosen.
        keep: how many to choose.

    >>> largest(np.array([1, 3, 3, 3]), np.array([True, True, True, False]), 2)
    array([False,  True,  True, False])
    """
    chosen = np.zeros(scores.shape, bool)
    if keep:
        positions = np.flatnonzero(alive)
        candidates = scores[positions]
        threshold = np.partition(candidates, -keep)[-keep]
        above = candidates > threshold
        ties = np.flatnonzero(candidates == threshold)[: keep - above.sum()]
        chosen[positions[above]] = True
        chosen[positions[ties]] = True
    return chosen


def kept_after(masks: Masks, sparsity: float) -> int:
    """How many weights are left at a sparsity.

    Raises:
        ValueError: if the sparsity is not in [0, 1), or none would be left.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(
            "Expected a sparsity from 0 to below 1, the share of weights to prune. "
            f"Received: sparsity={sparsity}"
        )
    keep = round(masks.size * (1 - sparsity))
    if not keep:
        raise ValueError(
            f"No weight of {masks.size} would be left. Received: sparsity={sparsity}"
        )
    return keep


def check_scores(scores: Scores, masks: Masks) -> None:
    """Raises ValueError if the scores do not fit the masks, or are not numbers."""
    if scores.keys() != masks.keys():
        raise ValueError(
            f"Expected scores for {sorted(masks)}. Received: {sorted(scores)}"
        )
    for name, mask in masks.items():
        if np.shape(scores[name]) != mask.shape:
            raise ValueError(
                f"Expected scores of shape {mask.shape} for `{name}`. "
                f"Received: shape {np.shape(scores[name])}"
            )
        if np.isnan(np.asarray(scores[name])[mask]).any():
            raise ValueError(
                f"The scores of `{name}` hold NaN, which has no rank. Did the training "
                "diverge? Lower the learning rate."
            )


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern is a weight's name or that of a layer it is in.

    >>> matches("encoder/hidden/kernel", "encoder/*"), matches("out/kernel", "out")
    (True, True)
    """
    parts = name.split("/")
    paths = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(path, pattern) for path in paths)


def check_patterns(patterns: Sequence[str] | Mapping[str, float], masks: Masks) -> None:
    """Raises ValueError if a pattern matches no weight."""
    for pattern in patterns:
        if not any(matches(name, pattern) for name in masks):
            raise ValueError(
                f"The pattern {pattern!r} matches none of the weights {sorted(masks)}"
            )


def included(masks: Masks, exclude: Sequence[str]) -> list[str]:
    """The names of the weights that no pattern leaves out."""
    check_patterns(exclude, masks)
    names = [name for name in masks if not any(matches(name, p) for p in exclude)]
    if not names:
        raise ValueError(f"Every layer is left out. Received: exclude={exclude!r}")
    return names


def _check_count(keep: int, alive: int, sparsity: float, masks: Masks) -> None:
    if not 0 <= keep <= alive:
        raise ValueError(
            f"Expected a sparsity that leaves the pruned weights pruned. Received: "
            f"sparsity={sparsity:.4f}, with {masks.kept} of {masks.size} weights left "
            f"(sparsity {masks.sparsity:.4f}); {keep} of the {alive} weights that may "
            "be pruned would have to be left."
        )


def _keep_by_layer(
    scores: Scores, masks: Masks, keep: int, shares: Mapping[str, float]
) -> Masks:
    counts = _largest_remainder(
        keep,
        shares,
        {name: int(np.count_nonzero(mask)) for name, mask in masks.items()},
    )
    return Masks(
        {
            name: largest(np.ravel(scores[name]), mask.ravel(), counts[name]).reshape(
                mask.shape
            )
            for name, mask in masks.items()
        }
    )


def _largest_remainder(
    total: int, shares: Mapping[str, float], most: Mapping[str, int]
) -> dict[str, int]:
    """Whole numbers near the shares that sum to `total`, none above its `most`."""
    # A share that is a whole number but for rounding errors counts as that number.
    counts = {
        name: min(most[name], math.floor(share + 1e-6))
        for name, share in shares.items()
    }
    order = sorted(shares, key=lambda name: counts[name] - shares[name])
    while sum(counts.values()) < total:
        for name in order:
            if sum(counts.values()) < total and counts[name] < most[name]:
                counts[name] += 1
    while sum(counts.values()) > total:
        for name in reversed(order):
            if sum(counts.values()) > total and counts[name]:
                counts[name] -= 1
    return counts
