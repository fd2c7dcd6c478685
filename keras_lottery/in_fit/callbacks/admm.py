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
from keras_lottery.in_fit.callbacks.pull import Pull
from keras_lottery.keras_bridge.internals.patches import at_last
from keras_lottery.keras_bridge.layers import get_state
from keras_lottery.keras_bridge.layers.state import trained_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets import grouping
from keras_lottery.tickets.allocation import Allocation, AllocationLike
from keras_lottery.tickets.grouping import Granularity, Grouped

Arrays = Mapping[str, np.ndarray]


def project(
    arrays: Arrays, masks: Masks, sparsity: float, allocation: Allocation
) -> dict[str, np.ndarray]:
    """The nearest arrays (Euclidean) with no more weights than the sparsity leaves.

    Args:
        arrays: weights by name.
        masks: those that are alive; the others stay zero.
        sparsity: the share of weights that end up zero.
        allocation: which layers they are taken from.

    Example:

    >>> import keras_lottery as kl
    >>> arrays = {"kernel": np.array([3.0, -1.0, 2.0, -4.0])}
    >>> masks = kl.Masks.dense({"kernel": (4,)})
    >>> project(arrays, masks, 0.5, kl.allocation.Global())["kernel"].tolist()
    [3.0, 0.0, 0.0, -4.0]
    """
    kept = allocation(_squares(arrays), masks, sparsity)
    return {name: np.where(kept[name], array, 0) for name, array in arrays.items()}


@keras.saving.register_keras_serializable(package="keras_lottery")
class ADMMPruning(Configured, InFit):
    """Trains the weights of a masked model towards a sparse copy of them, then prunes.

    Minimises the loss f(W) where W has no more weights than the sparsity leaves. The
    W-step is training as ever with the gradient of rho/2 ||W - Z + U||² added, which
    the loss that Keras reports leaves out. Then Z = projection(W + U), its largest
    weights, and U = U + W - Z. When training ends the model is pruned to the weights
    that Z has. Fine-tune it with an ordinary `fit`: at high sparsities that is needed,
    and more so the larger the last of `residuals` is.

    Frozen layers keep their weights and masks, and count for nothing. With
    `steps_per_execution`, Z and U change between executions. A `fit` that raises leaves
    the model dense, and the next one trains it as ever; one that `BackupAndRestore`
    restores is refused, since Z and U are lost then. Where another callback puts
    weights back when training ends, as EarlyStopping with `restore_best_weights`, it is
    those that are pruned.

    Args:
        sparsity: the share of prunable weights, not counting frozen ones, that end up
            zero.
        rho: the weight of the quadratic term.
        growth: the factor by which rho grows at each update of Z and U; 1 keeps it.
        frequency: steps from one update to the next; by default an epoch.
        allocation, granularity: same as `prune`.

    Attributes:
        residuals: ||W - Z|| / ||W|| at each update: how far the weights still are from
            their sparse copies.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked or cannot have the sparsity.

    Reference:
        Zhang et al. 2018, "A systematic DNN weight pruning framework using alternating
        direction method of multipliers", equations 5 to 9. When rho grows, U is scaled
        as in Boyd et al. 2011, section 3.4.1.

    Example:

    ```python
    model = kl.mask_model(kl.models.lenet_300_100())
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = kl.ADMMPruning(0.9, rho=1e-2, growth=1.4)
    model.fit(x, y, epochs=12, callbacks=[callback])
    kl.get_sparsity(model), callback.residuals  # 0.9, and a residual for each epoch
    ```
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
        self.sparsity = sparsity
        self.rho = rho
        self.growth = growth
        self.frequency = frequency
        self.allocation = allocation
        self.granularity = granularity
        self.residuals: list[float] = []
        self._split = Split.at({}, rho)
        self._pull: Pull | None = None
        self._epoch_start = self._step = self._updated = 0

    def start(self) -> None:
        """Projects the weights that the training starts from."""
        self.residuals = []
        self._epoch_start = self._step = self._updated = 0
        self._allocate = Grouped(
            allocations.get(self.allocation),
            grouping.get(self.granularity).of(self.model, trained_masks(self.model)),
        )
        self._split = Split.at(self._project(self._weights(), self.rho), self.rho)
        self._pull = Pull(self.model)
        self._aim()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch_start = self._step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._step = self._epoch_start + batch + 1
        if self.frequency and self._step - self._updated >= self.frequency:
            self._update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if not self.frequency:
            self._update()

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if self._updated < self._step:
            self._update()
        if self._pull is not None:
            self._pull.remove()
            self._pull = None
        self._prune()
        at_last(self, self._prune)

    def _prune(self) -> None:
        # Where Z is zero, so is this but for what U has gathered, which is smaller.
        z, u = self._split.z, self._split.u
        scores = _squares({name: z[name] + u[name] for name in z})
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
        return project(arrays, masks, self.sparsity, self._allocate)

    def _update(self) -> None:
        weights = self._weights()
        self._split.update(weights, self._project)
        self.residuals.append(_distance(weights, self._split.z))
        self._updated = self._step
        self._split.scale(self.growth)
        self._aim()

    def _aim(self) -> None:
        if self._pull is not None:
            self._pull.aim(self._split.target(), self._split.rho)


def _squares(arrays: Arrays) -> dict[str, np.ndarray]:
    # In double precision, where the squares of small weights do not become zero.
    return {name: np.square(array, dtype="float64") for name, array in arrays.items()}


def _distance(weights: Arrays, others: Arrays) -> float:
    """How far the weights are from others, as a share of their own length."""
    apart = sum(np.sum(np.square(w - others[n])) for n, w in weights.items())
    length = sum(np.sum(np.square(w)) for w in weights.values())
    return float(np.sqrt(apart / length)) if length else 0.0
