"""The granularity of single weights."""

from dataclasses import dataclass

import numpy as np

from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import Scores, largest
from keras_lottery.tickets.grouping.grouping import Grouping, Groups


def _itself(masks: Masks) -> Masks:
    return masks


@dataclass(frozen=True)
class Weights(Grouping):
    """Each weight is a group of its own."""

    def fold(self, scores: Scores, masks: Masks) -> Groups:
        return Groups(scores, masks, unfold=_itself)

    def rearrange(self, masks: Masks, preference: Scores, alive: Masks) -> Masks:
        found = {}
        for name, mask in masks.items():
            # Flipping resolves ties from the opposite end to pruning, so that the worst
            # weights are exactly the best ones in reverse order.
            wish = {name: np.flip(np.asarray(preference[name]))}
            count = int(np.count_nonzero(mask))
            chosen = largest(wish, {name: np.flip(alive[name])}, count)
            found[name] = np.flip(chosen[name])
        return Masks(found)

    def shuffle(self, masks: Masks, rng: np.random.Generator) -> Masks:
        return Masks(
            {
                name: rng.permutation(mask.ravel()).reshape(mask.shape)
                for name, mask in masks.items()
            }
        )
