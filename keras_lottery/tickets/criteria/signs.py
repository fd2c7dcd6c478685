"""Variants of a criterion that depend on whether a weight kept its sign."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.weights import check_trained

# Far below any score of a weight, but finite, so that scores can be summed.
_LAST = np.float32(-1e30)


@dataclass(frozen=True)
class SignForm:
    """Ranks the weights that kept their sign above all others, or those that lost it.

    The score is s(w_i, w_f) if sign(w_i) = sign(w_f); the other weights come last, in
    random order. With `same=False` the signs have to differ. For a nonnegative s this
    is the paper's max(0, s · w_i w_f / |w_i w_f|), with ties broken at random.

    Args:
        criterion: s, the criterion that ranks the weights that come first.
        same: whether a weight has to have kept its sign to come first.

    Reference:
        Zhou et al. 2019, section 5, "large_final, same sign" and "diff sign":
        max(0, w_i w_f / |w_i|) and max(0, -w_i w_f / |w_i|).

    Example:

    >>> import keras_lottery as kl
    >>> kept = SignForm(kl.criteria.magnitude, same=True)
    >>> kl.criteria.get("large_final_same_sign").score == kept
    True
    """

    criterion: Callable[[Snapshot], Scores]
    same: bool = True

    def __call__(self, snapshot: Snapshot) -> Scores:
        check_trained(snapshot)
        scores = {}
        for name, score in self.criterion(snapshot).items():
            kept = np.sign(snapshot.initial[name]) == np.sign(snapshot.final[name])
            last = _LAST * (1 + snapshot.rng.random(kept.shape, np.float32))
            scores[name] = np.where(kept == self.same, score, last)
        return scores
