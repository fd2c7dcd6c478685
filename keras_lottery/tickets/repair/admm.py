"""Weights for a mask by the alternating direction method of multipliers."""

from dataclasses import dataclass

import numpy as np

from keras_lottery import checks
from keras_lottery.admm import Split
from keras_lottery.tickets.repair.by_layer import ByLayer, Choice


@dataclass(frozen=True)
class ADMM(ByLayer):
    """Alternates between least squares and the mask, with one inverse for all outputs.

    Inputs are scaled to equal norm, so that the magnitude of a weight measures its
    effect. With `choose`, only the largest weights are kept, and fewer at each step:
    after step t of T, the share 1 - (1 - t/T)³ of the weights to be pruned is pruned.

    Args:
        damping, choose: same as in `ByLayer`.
        iterations: the number of steps.
        rho: ρ, the weight of the squared distance from the matrices that the mask
            allows.

    Reference:
        Boža 2024, "Fast and effective weight update for pruned large language models",
        algorithms 1 and 2.
    """

    iterations: int = 20
    rho: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("iterations", self.iterations, 1)
        checks.number("rho", self.rho, above=0)

    def solve(
        self,
        weights: np.ndarray,
        mask: np.ndarray,
        moments: np.ndarray,
        choice: Choice | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        scale = np.sqrt(np.diag(moments))[:, np.newaxis]
        scaled = moments / scale / scale.T
        best = scaled @ (weights * scale)
        inverse = np.linalg.inv(scaled + self.rho * np.eye(len(scaled)))
        split = Split.at(weights * scale * (1 if choice else mask), self.rho)

        def allowed(moved: np.ndarray, rho: float) -> np.ndarray:
            return np.where(mask, moved, 0)

        for step in range(1, self.iterations + 1):
            free = inverse @ (best + self.rho * split.target())
            if choice is not None:
                share = 1 - (1 - step / self.iterations) ** 3
                chosen = choice.towards(share, np.abs(free + split.u))
                mask = np.concatenate([chosen, mask[len(chosen) :]])
            split.update(free, allowed)
        return split.z / scale, mask
