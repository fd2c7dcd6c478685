"""Forms of a criterion that ask whether a weight kept its sign in training."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.weights import check_trained

# Far below any score of a weight, and finite: scores may be added up.
_LAST = np.float32(-1e30)


@dataclass(frozen=True)
class SignForm:
    """Ranks the weights that kept their sign above all others, or those that lost it.

    s(w_i, w_f) where sign(w_i) = sign(w_f); the others come last, in random order.
    For `same=False` the sign has to differ. Where s is not negative this is the paper's
    max(0, s · w_i w_f / |w_i w_f|), in which ties are broken at random.

    Args:
        criterion: s, what the weights of the form are worth.
        same: whether the sign has to be the same.

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
