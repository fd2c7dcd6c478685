"""Greedy forward selection: a layer becomes the average of a few of its filters.

Starting from no filters, each step adds the filter that lowers a loss most, until there
are enough. If the layer had N filters, it then becomes N / n times the sum of the n
chosen ones. A filter that is chosen twice counts twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.layers import State
from keras_lottery.masks import Masks
from keras_lottery.structured.filters import Filters, filters_of
from keras_lottery.structured.units import Units
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.repair import Repair

Objective = Literal["loss", "imitation"]

Losses = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(counts, candidates) -> losses`: the losses if a candidate is chosen once more.

`counts` (filters,) holds how often each filter has been chosen so far.
"""

STEPS = 4
"""The number of steps for each filter that is kept, if filters may repeat."""


def select(
    losses: Losses,
    alive: np.ndarray,
    rng: np.random.Generator,
    repeats: bool = True,
    candidates: int | None = None,
    start: np.ndarray | None = None,
) -> Iterator[tuple[int, float]]:
    """Chooses filters one after the other, each time the one with the lowest loss.

    Args:
        losses: see `Losses`.
        alive: booleans (filters,), true for filters that may be chosen.
        rng: draws the candidates.
        repeats: whether a filter may be chosen again. If not, the selection ends when
            all filters are chosen.
        candidates: how many filters are tried at each step; by default all.
        start: how often each filter has been chosen already (filters,); by default
            never.

    Yields:
        The index of the chosen filter, and the loss after choosing it.
    """
    counts = np.zeros(len(alive), int) if start is None else start.copy()
    allowed = np.flatnonzero(alive)
    while len(allowed):
        tried = allowed
        if candidates is not None and candidates < len(allowed):
            tried = np.sort(rng.choice(allowed, candidates, replace=False))
        found = losses(counts, tried)
        best = int(np.argmin(found))
        counts[tried[best]] += 1
        yield int(tried[best]), float(found[best])
        if not repeats:
            allowed = allowed[allowed != tried[best]]


def imitation(products: np.ndarray, size: int) -> Losses:
    """Returns losses ‖Z - Z_n‖² that compare the chosen filters with all of them.

    Args:
        products: XᵀX (filters, filters), where X_i is the contribution of filter i to
            the next layers' outputs. Z is the contribution of all filters, and Z_n that
            of the average of the chosen ones.
        size: N, the number of filters that the layer has.
    """
    sums = products.sum(axis=1)

    def losses(counts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        scale = size / (counts.sum() + 1)
        common = products @ counts
        square = counts @ common + 2 * common + np.diag(products)
        cross = counts @ sums + sums
        return (scale * (scale * square - 2 * cross) + sums.sum())[candidates]

    return losses


@dataclass(frozen=True)
class GreedyForward(Repair):
    """Replaces the filters of a layer by an average of those that are left.

    As a repair, it selects among the filters that are left. The number of times that a
    filter is chosen, multiplied by N / n, becomes a factor of the weights that read the
    filter. With `"loss"`, layers are repaired one after the other, each in the network
    in which the earlier ones have been repaired.

    Args:
        objective: `"loss"`, the compiled loss on (x, y); or `"imitation"`, the squared
            distance of the next layers' outputs from their values before pruning, which
            needs only x and no forward pass for each candidate.
        repeats: whether a filter may be chosen again, as in the paper but not in its
            authors' code. If not, all factors of a layer are equal.
        candidates: how many randomly drawn filters are tried at each step; by default
            50 for `"loss"` and all for `"imitation"`.

    Reference:
        Ye et al. 2020, "Good subnetworks provably exist: pruning via greedy forward
        selection", algorithm 1; for imitation, Ye et al. 2020, "Greedy optimization
        provably wins the lottery: logarithmic number of winning tickets is enough".

    Example:

    >>> import keras_lottery as kl
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> x = np.random.default_rng(0).random((64, 28, 28, 1), "float32")
    >>> kl.prune(model, 0.9, "greedy_imitation", granularity="filter", data=x)
    >>> [layer.units for layer in kl.compact(model).layers if hasattr(layer, "units")]
    [30, 10, 10]
    """

    objective: Objective = "loss"
    repeats: bool = True
    candidates: int | None = None

    def __post_init__(self) -> None:
        checks.choice("objective", self.objective, get_args(Objective))
        checks.flag("repeats", self.repeats)
        if self.candidates is not None:
            checks.count("candidates", self.candidates, 1)

    def score(self, filters: Filters) -> np.ndarray:
        """Scores filters: the later a filter is first chosen, the lower its score."""
        size = int(filters.alive.sum())
        losses = self._losses(filters, size)
        counts = np.zeros(len(filters.alive), int)
        order: list[int] = []
        for chosen, _ in self._steps(losses, filters.alive, filters.rng):
            if not counts[chosen]:
                order.append(chosen)
            counts[chosen] += 1
        # The filters that were never chosen follow, in a selection without repeats.
        rest = filters.alive & (counts == 0)
        tried = self._tried
        last = select(losses, rest, filters.rng, False, tried, start=counts)
        order += [chosen for chosen, _ in last]
        scores = np.zeros(len(counts))
        scores[order] = np.arange(size, 0, -1)
        return scores

    def factors(self, filters: Filters, kept: np.ndarray) -> np.ndarray:
        """Returns the factors of the kept filters (filters,), and 0 for the others."""
        size = int(filters.alive.sum())
        if not self.repeats:
            return size * kept / kept.sum()
        counts, best, least = np.zeros(len(kept), int), kept.astype(int), np.inf
        for chosen, loss in self._steps(self._losses(filters, size), kept, filters.rng):
            counts[chosen] += 1
            if loss < least:
                best, least = counts.copy(), loss
        return size * best / best.sum()

    def __call__(self, snapshot: Snapshot, masks: Masks) -> State:
        grouping = snapshot.grouping
        factors = np.ones(getattr(grouping, "count", 0))
        every = filters_of(snapshot, factors) if isinstance(grouping, Units) else []
        if not isinstance(grouping, Units) or grouping.layers.keys() != {
            filters.name for filters in every
        }:
            raise ValueError(
                "A repair by averages of filters needs whole filters to be pruned. "
                f"Received: repair={self!r}, and groups of "
                f"{list(grouping.left(masks))}. Pass granularity='filter'."
            )
        left = grouping.left(masks)
        for filters in every:
            kept = left[filters.name]
            if (kept != filters.alive).any():
                factors[filters.groups] = self.factors(filters, kept)
        scaled = grouping.scaled(snapshot.final, factors)
        return {name: np.where(masks[name], w, 0) for name, w in scaled.items()}

    def _losses(self, filters: Filters, size: int) -> Losses:
        if self.objective == "imitation":
            return imitation(filters.products(), size)

        def losses(counts: np.ndarray, candidates: np.ndarray) -> np.ndarray:
            scale = size / (counts.sum() + 1)
            more = np.eye(len(counts))[candidates]
            return np.array([filters.loss(scale * row) for row in counts + more])

        return losses

    def _steps(
        self, losses: Losses, alive: np.ndarray, rng: np.random.Generator
    ) -> Iterator[tuple[int, float]]:
        steps = select(losses, alive, rng, self.repeats, self._tried)
        return islice(steps, STEPS * int(alive.sum()))

    @property
    def _tried(self) -> int | None:
        return self.candidates or (50 if self.objective == "loss" else None)
