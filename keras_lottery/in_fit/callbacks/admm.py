"""Pruning by the alternating direction method of multipliers, inside one `fit`."""

from collections.abc import Mapping

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.admm import Split
from keras_lottery.in_fit.callbacks.common import (
    Configured,
    InFit,
)
from keras_lottery.in_fit.callbacks.levels import (
    Bits,
    Levels,
    bits_by_name,
    check_bits,
)
from keras_lottery.in_fit.callbacks.pull import Pull
from keras_lottery.keras_bridge.internals.patches import at_last
from keras_lottery.keras_bridge.layers import get_state, set_state
from keras_lottery.keras_bridge.layers.state import trained_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets import grouping
from keras_lottery.tickets.allocation import Allocation, AllocationLike
from keras_lottery.tickets.grouping import Granularity, Grouped

Arrays = Mapping[str, np.ndarray]


def project(
    arrays: Arrays,
    masks: Masks,
    sparsity: float,
    allocation: Allocation,
    levels: Levels | None = None,
    curvature: Arrays | None = None,
) -> dict[str, np.ndarray]:
    """Projects arrays to the nearest ones with the given sparsity and levels.

    Args:
        arrays: weights by name.
        masks: which weights are alive; the others stay zero.
        sparsity: the share of weights that end up zero.
        allocation: how the pruned weights are distributed over layers and groups.
        levels: the values that the remaining weights may take; any by default.
        curvature: factors for the squares of weights, by name.

    Example:

    >>> import keras_lottery as kl
    >>> arrays = {"kernel": np.array([3.0, -1.0, 2.0, -4.0])}
    >>> masks = kl.Masks.dense({"kernel": (4,)})
    >>> project(arrays, masks, 0.5, kl.allocation.Global())["kernel"].tolist()
    [3.0, 0.0, 0.0, -4.0]
    """
    kept = allocation(_scores(arrays, curvature or {}), masks, sparsity)
    return (levels or Levels({})).nearest(arrays, kept)


@keras.saving.register_keras_serializable(package="keras_lottery")
class ADMMPruning(Configured, InFit):
    """Trains a masked model's weights towards a sparse copy of them, then prunes.

    It minimises the loss f(W) subject to W having no more nonzero weights than the
    sparsity allows. The W-step is training with the gradient of rho/2 ||W - Z + U||²
    added; the loss that Keras reports does not include that term. Then Z is set to the
    projection of W + U, which keeps its largest weights, and U to U + W - Z. When
    training ends, the model is pruned to the nonzero weights of Z. Fine-tune it with an
    ordinary `fit`: high sparsities need this, the more so the larger the last of
    `residuals` is.

    With `granularity`, the projection keeps the groups that `prune` would keep by the
    mean of their squares.

    With `bits`, the remaining weights of Z take the nearest levels of their layer, and
    so do those of the model when training ends. A layer has at most 2^b - 1 equidistant
    levels, and zero.
    Prune and fine-tune a model first, then train it with the same `sparsity` and
    `bits`; after that, `callbacks.SharedWeights` can train the levels, and
    `save_compressed` stores them.

    With `curvature`, weights are ranked by how much the loss would change without them:
    by the square of the weight times the mean square of its gradient, instead of the
    square alone. Use it with a `growth` above 1 to prune 90 % or more of a large
    trained network.

    Frozen layers keep their weights and masks, and do not count. With
    `steps_per_execution`, Z and U change between executions. A `fit` that raises leaves
    the model dense, and the next one trains it as usual; one that `BackupAndRestore`
    restores is refused, since Z and U are then lost. If another callback restores
    weights when training ends, such as EarlyStopping with `restore_best_weights`, the
    restored weights are pruned.

    Args:
        sparsity: the share of prunable weights, not counting frozen ones, that end up
            zero.
        rho: the weight of the quadratic term.
        growth: the factor by which rho grows at each update of Z and U; 1 keeps it.
        frequency: steps from one update to the next; by default an epoch.
        allocation, granularity: same as `prune`.
        bits: the binary logarithm of the number of levels, including zero, 2 to 6: for
            all kernels, or by pattern of weight or layer name, such as
            `{"conv*": 3, "*": 2}`. The first match counts; a kernel that matches none
            keeps its values. By default, no kernel has levels.
        rounds: with `bits`, the number of rounds in which weights are fixed at their
            levels, in the second half of the training: at the beginning of round i of
            n, i / (n + 1) of each kernel's weights, the nearest ones, stay at their
            levels from then on, and the others continue to train. With 0, all weights
            train until the end.
        curvature: whether weights are ranked by the loss, see above.

    Attributes:
        residuals: ||W - Z|| / ||W|| at each update: how far the weights still are from
            their sparse copies.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked or cannot have the sparsity, or a pattern of `bits` matches no
            kernel.

    Reference:
        Zhang et al. 2018, "A systematic DNN weight pruning framework using alternating
        direction method of multipliers", equations 5 to 9. When rho grows, U is scaled
        as in Boyd et al. 2011, section 3.4.1. Levels: Ren et al. 2019, "ADMM-NN: an
        algorithm-hardware co-design framework of DNNs using alternating direction
        method of multipliers"; their rounds: Leng et al. 2018, "Extremely low bit
        neural network". Curvature: Lee et al. 2025, "The unseen frontier: pushing the
        limits of LLM sparsity with surrogate-free ADMM".

    Example::

        model = kl.mask_model(kl.models.lenet_300_100())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        callback = kl.ADMMPruning(0.9, rho=1e-2, growth=1.4)
        model.fit(x, y, epochs=12, callbacks=[callback])
        kl.get_sparsity(model), callback.residuals  # 0.9, and a residual for each epoch
    """

    not_in_backups = "Z, U and rho"

    def __init__(
        self,
        sparsity: float,
        rho: float = 1e-3,
        growth: float = 1.0,
        frequency: int | None = None,
        allocation: AllocationLike | None = None,
        granularity: Granularity = "weight",
        bits: Bits | None = None,
        rounds: int = 0,
        curvature: bool = False,
    ) -> None:
        super().__init__()
        checks.fraction("sparsity", sparsity)
        checks.number("rho", rho, above=0)
        checks.number("growth", growth, 1)
        if frequency is not None:
            remedy = "None is once an epoch."
            checks.count("frequency", frequency, 1, remedy=remedy)
        if allocation is None:
            allocation = grouping.get(granularity).default_allocation
        allocations.get(allocation)
        if bits is not None:
            check_bits(bits)
        checks.count("rounds", rounds)
        if rounds and bits is None:
            remedy = "Give the `bits` of the levels, such as bits=3."
            checks.refuse("rounds", "0 without `bits`", rounds, remedy)
        checks.flag("curvature", curvature)
        self.sparsity = sparsity
        self.rho = rho
        self.growth = growth
        self.frequency = frequency
        self.allocation = allocation
        self.granularity = granularity
        self.bits = bits
        self.rounds = rounds
        self.curvature = curvature
        self.residuals: list[float] = []
        self._split = Split.at({}, rho)
        self._pull: Pull | None = None
        self._levels = Levels({})
        self._curvature: dict[str, np.ndarray] = {}
        self._epoch_start = self._step = self._updated = self._round = 0
        self._first_epoch: int | None = None

    def start(self) -> None:
        """Projects the weights from which the training starts."""
        self.residuals = []
        self._epoch_start = self._step = self._updated = self._round = 0
        self._first_epoch = None
        masks = trained_masks(self.model)
        bits = {} if self.bits is None else bits_by_name(self.bits, masks)
        self._levels = Levels(bits)
        self._allocate = Grouped(
            allocations.get(self.allocation),
            grouping.get(self.granularity).of(self.model, masks),
        )
        self._pull, self._curvature = None, {}
        self._split = Split.at(self._project(self._weights(), self.rho), self.rho)
        self._pull = Pull(self.model, bool(self.rounds), self.curvature)
        self._aim()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch_start = self._step
        if self._first_epoch is None:
            self._first_epoch = epoch
        self._epoch, self._share = epoch, 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step = self._epoch_start + batch + 1
        # The length of the first epoch is not always known in advance.
        self._share = (batch + 1) / (self.params.get("steps") or np.inf)
        if self.frequency and self._step - self._updated >= self.frequency:
            self._update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._share = 1.0
        if not self.frequency:
            self._update()

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._updated < self._step:
            self._update()
        if self._pull is not None:
            self._pull.remove()
            self._pull = None
        self._finish()
        at_last(self, self._finish)

    def _finish(self) -> None:
        """Prunes the weights that Z lacks, and sets the others to their levels."""
        self._prune()
        if self._levels.bits:
            masks = trained_masks(self.model)
            on_levels = self._levels.nearest(self._weights(), masks)
            set_state(self.model, get_state(self.model) | on_levels)

    def _prune(self) -> None:
        # W + U of the last update; U has been divided since.
        z, u = self._split.z, self._split.u
        moved = {name: z[name] + self.growth * u[name] for name in z}
        scores = _scores(moved, self._curvature)
        prune(
            self.model,
            self.sparsity,
            lambda _: scores,
            self.allocation,
            self.granularity,
            frozen=False,
        )

    def _weights(self) -> dict[str, np.ndarray]:
        state = get_state(self.model)
        return {name: state[name] for name in trained_masks(self.model)}

    def _project(self, arrays: Arrays, rho: float) -> dict[str, np.ndarray]:
        masks = trained_masks(self.model)
        how = self._allocate, self._levels, self._curvature
        return project(arrays, masks, self.sparsity, *how)

    def _update(self) -> None:
        if self._pull is not None:
            self._curvature = self._pull.curvature()
        if self.rounds:
            self._hold()
        weights = self._weights()
        self._split.update(weights, self._project)
        self.residuals.append(_distance(weights, self._split.z))
        self._updated = self._step
        self._split.scale(self.growth)
        self._aim()

    def _hold(self) -> None:
        """Begins a round if it is due, and sets held weights to their levels."""
        first = self._first_epoch or 0
        done = (self._epoch - first + self._share) / (self.params["epochs"] - first)
        number = min(int((2 * done - 1) * self.rounds) + 1, self.rounds)
        if done >= 0.5 and number > self._round and self._pull is not None:
            if not self._round:
                self._prune()  # Held weights must not be pruned later.
            self._round = number
            share = number / (self.rounds + 1)
            self._levels.hold(self._weights(), trained_masks(self.model), share)
            self._pull.hold(self._levels.held)
        weights = self._weights()
        on_levels = self._levels.nearest(weights, trained_masks(self.model))
        held = {
            name: np.where(mask, on_levels[name], weights[name])
            for name, mask in self._levels.held.items()
        }
        set_state(self.model, get_state(self.model) | held)

    def _aim(self) -> None:
        if self._pull is not None:
            self._pull.aim(self._split.target(), self._split.rho)


def _scores(arrays: Arrays, curvature: Arrays) -> dict[str, np.ndarray]:
    # In double precision, the squares of small weights do not become zero.
    scores = {n: np.square(array, dtype="float64") for n, array in arrays.items()}
    return scores | {name: scores[name] * mean for name, mean in curvature.items()}


def _distance(weights: Arrays, others: Arrays) -> float:
    """The distance of weights from others, divided by their own norm."""
    apart = sum(np.sum(np.square(w - others[n])) for n, w in weights.items())
    length = sum(np.sum(np.square(w)) for w in weights.values())
    return float(np.sqrt(apart / length)) if length else 0.0
