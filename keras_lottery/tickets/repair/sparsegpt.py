"""Repair by SparseGPT: later weights make up for the error of each pruned weight."""

from dataclasses import dataclass

import numpy as np

from keras_lottery import checks
from keras_lottery.tickets.repair.by_layer import ByLayer, Choice


@dataclass(frozen=True)
class SparseGPT(ByLayer):
    """Prunes input after input, and adjusts the weights of the inputs that follow.

    An input's weights are pruned for all outputs at once, and the inputs after it make
    up for the error as well as they can: one factorisation serves all outputs. With
    `choose`, a block's weights are chosen when it is reached, by what pruning them
    costs at that point: W² over the squared diagonal of the factor.

    Args:
        damping, choose: same as in `ByLayer`.
        block: the number of inputs whose weights are chosen at a time.

    Reference:
        Frantar & Alistarh 2023, "SparseGPT: massive language models can be accurately
        pruned in one-shot", algorithm 1.
    """

    block: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("block", self.block, 1)

    def solve(
        self,
        weights: np.ndarray,
        mask: np.ndarray,
        moments: np.ndarray,
        choice: Choice | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        weights, mask = weights.copy(), mask.copy()
        inverse = np.linalg.inv(moments)
        upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
        stop = 0
        while (start := stop) < len(weights):
            stop = min(start + self.block, len(weights))
            stop = stop if choice is None else choice.end(stop)
            block = slice(start, stop)
            if choice is not None:
                costs = (weights[block] / np.diag(upper)[block, np.newaxis]) ** 2
                part = choice.best(block, costs)
                # The constant of the biases may follow the last block.
                mask[start : start + len(part)] = part
            errors = np.zeros_like(weights[block])
            for row in range(block.start, block.stop):
                error = np.where(mask[row], 0, weights[row]) / upper[row, row]
                rest = slice(row + 1, block.stop)
                weights[rest] -= np.outer(upper[row, rest], error)
                errors[row - start] = error
            weights[block.stop :] -= upper[block, block.stop :].T @ errors
        return np.where(mask, weights, 0), mask
