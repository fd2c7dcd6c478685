"""One ranking of all the weights of the network."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.counts import keep_among
from keras_lottery.tickets.allocation.names import check_scores, included
from keras_lottery.tickets.allocation.protocol import Allocation
from keras_lottery.tickets.allocation.ranking import Scores, largest


@dataclass(frozen=True)
class Global(Allocation):
    """Keeps the weights of the largest scores, whichever layer they are in.

    Args:
        exclude: patterns of weights or layers that are not pruned.
    """

    exclude: Sequence[str] = ()

    def __call__(self, scores: Scores, masks: Masks, sparsity: float) -> Masks:
        check_scores(scores, masks)
        names = included(masks, self.exclude)
        keep = keep_among(names, masks, sparsity)
        chosen = largest(scores, {name: masks[name] for name in names}, keep)
        return Masks({name: chosen.get(name, mask) for name, mask in masks.items()})
