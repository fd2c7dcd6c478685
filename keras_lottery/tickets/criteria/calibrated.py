"""Scores from the inputs that each weight multiplies; they need no targets."""

from functools import partial

import numpy as np

from keras_lottery.keras_bridge.calibration import matrices_of
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.criterion import Criterion
from keras_lottery.tickets.snapshot import Snapshot


@partial(Criterion, allocation="uniform", within_outputs=True)
def wanda(snapshot: Snapshot) -> Scores:
    """|W| ‖x‖: keeps the weights whose products with their inputs are large.

    ‖x_j‖ is the norm of the j-th input over all of `data`, which needs no targets. The
    weights of each output are ranked among themselves, and by default every layer gets
    the same sparsity.

    Reference:
        Sun et al. 2024, "A simple and effective pruning approach for large language
        models", equation 1.
    """
    norms = snapshot.input_norms()
    return {name: np.abs(snapshot.final[name]) * norms[name] for name in snapshot.masks}


@partial(Criterion, allocation="uniform")
def ria(snapshot: Snapshot) -> Scores:
    """(|W| / Σ_in |W| + |W| / Σ_out |W|) √‖x‖: keeps large shares of output and input.

    No input or output is therefore cut off because all its weights are small. By
    default every layer gets the same sparsity.

    Reference:
        Zhang et al. 2024, "Plug-and-play: an efficient post-training pruning method for
        large language models", with a = 0.5.
    """
    norms = snapshot.input_norms()
    scores = {}
    for name, of in matrices_of(snapshot.model, snapshot.masks).items():
        size = np.abs(of.of(snapshot.final[name]))
        sums = [np.maximum(size.sum(axis=a, keepdims=True), 1e-30) for a in (1, 2)]
        shares = of.weight(size / sums[0] + size / sums[1])
        scores[name] = shares * np.sqrt(norms[name])
    return scores


@partial(Criterion, allocation="uniform", repair="sparsegpt")
def sparsegpt(snapshot: Snapshot) -> Scores:
    """W² / [H⁻¹]: how much the layer's squared error grows if the weight is pruned.

    This is the error after the output's other weights have been adjusted optimally. H
    is XᵀX with 1 % of its mean diagonal added to the diagonal. In `prune`, the repair
    of the same name then chooses the weights again while it changes them.

    Reference:
        Hassibi & Stork 1992, "Second order derivatives for network pruning: optimal
        brain surgeon"; Frantar & Alistarh 2023, "SparseGPT", section 3.
    """
    snapshot.inputs()  # Raises at once if there are none.
    scores = {}
    for name, of in matrices_of(snapshot.model, snapshot.masks).items():
        inverse = [_inverse_diagonal(m) for m in snapshot.second_moments(name)]
        matrices = of.of(snapshot.final[name]).astype("float64") ** 2
        matrices /= np.stack(inverse)[..., np.newaxis]
        scores[name] = of.weight(matrices)
    return scores


@partial(Criterion, allocation="uniform", repair="admm")
def admm_start(snapshot: Snapshot) -> Scores:
    """|W| ‖x‖, with weights ranked over the whole layer: where ADMM starts from.

    In `prune`, the repair of the same name then prunes step by step as it changes the
    weights.

    Reference:
        Boža 2024, "Fast and effective weight update for pruned large language models".
    """
    return wanda(snapshot)


def _inverse_diagonal(moments: np.ndarray) -> np.ndarray:
    """Returns the diagonal of H⁻¹; the damping is at least the smallest float."""
    damping = max(0.01 * float(np.diag(moments).mean()), 1e-30)
    return np.diag(np.linalg.inv(moments + damping * np.eye(len(moments))))
