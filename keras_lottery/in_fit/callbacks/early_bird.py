"""Early-bird tickets, which are drawn early in the dense network's training."""

import itertools
import warnings
from collections import deque
from typing import Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.in_fit.callbacks.common import (
    Configured,
    InFit,
)
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.internals.optimizers import steps_done
from keras_lottery.keras_bridge.layers import State, get_state
from keras_lottery.keras_bridge.layers.state import trained_masks
from keras_lottery.masks import Masks
from keras_lottery.pruning import chosen, default_allocation, masks_after, rehearse
from keras_lottery.tickets import Ticket, grouping
from keras_lottery.tickets.allocation import AllocationLike
from keras_lottery.tickets.criteria import CriterionLike
from keras_lottery.tickets.grouping import Granularity


def mask_distance(one: Masks, other: Masks) -> float:
    """The share of weights that one of two masks keeps and the other does not.

    Raises:
        ValueError: if names or shapes differ.

    >>> one, other = Masks({"kernel": [1, 1, 0, 0]}), Masks({"kernel": [1, 0, 1, 0]})
    >>> mask_distance(one, other)
    0.5
    """
    for argument, masks in (("one", one), ("other", other)):
        checks.instance(argument, masks, Masks, "a `Masks` of at least one weight")
    shapes = [{name: m.shape for name, m in masks.items()} for masks in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "Expected `one` and `other` to be masks of the same weights. Received: "
            f"{shapes[0]}, {shapes[1]}"
        )
    differing = sum(int(np.count_nonzero(m != other[name])) for name, m in one.items())
    return differing / one.size


@keras.saving.register_keras_serializable(package="keras_lottery")
class EarlyBird(Configured, InFit):
    """Stops training as soon as the masks that pruning would give no longer change.

    At the end of each epoch, it notes the masks that `prune` would set at that time.
    It stops when no two of the last `queue` masks differ in more than `threshold` of
    their weights (or of their filters, if filters are pruned). The model stays dense.
    To continue with the ticket from the current weights, as the paper does:

        kl.set_masks(model, callback.masks)
        model.fit(...)

    `callback.ticket(rewind=True)` returns to the weights before the training. A
    training that `BackupAndRestore` restores is refused, because these weights are then
    lost.
    Frozen layers keep their weights and masks, and do not count.

    Args:
        sparsity: the share of prunable weights, not counting frozen ones, to be zero
            in the ticket; of filters, the share of those that can be pruned.
        threshold: the distance below which masks have to stay, above 0. The distance of
            two masks of sparsity s is at most 2 min(s, 1 - s): choose less.
        queue: the number of masks that are compared.
        criterion, allocation, granularity, data, seed: same as `prune`. The paper uses
            `criterion="bn_scale", granularity="filter", allocation="global"`.

    Attributes:
        masks: the masks noted last; those of the ticket once training has ended.
        epoch: the epoch at whose end they were noted, counted from 0.
        steps: the number of steps that the optimizer had made by then.
        distances: the largest distance between any two masks of the queue, for each
            epoch from the second one on.
        settled: whether the masks stopped changing, so that training was stopped.
        steps_saved: about how many of the steps requested from `fit` were saved.

    Raises:
        ValueError: if an argument is out of range; when training begins, if the model
            is not masked or cannot be pruned in this way.

    Reference:
        You et al. 2020, "Drawing early-bird tickets: towards more efficient training of
        deep networks", section 3 and algorithm 1. Its code compares the newest mask
        with the others of the queue; here, any two are compared, which is stricter.

    Example::

        model = kl.mask_model(kl.models.lenet_300_100())
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        callback = kl.EarlyBird(0.8)
        model.fit(x, y, epochs=20, callbacks=[callback])  # stops when the masks stay
        callback.epoch, callback.steps_saved
        kl.set_masks(model, callback.masks)  # to train on from here, or:
        callback.ticket(rewind=True).save("early.ticket")
    """

    not_in_backups = "the initial weights, and the masks of the last epochs"

    def __init__(
        self,
        sparsity: float,
        threshold: float = 0.1,
        queue: int = 5,
        criterion: CriterionLike = "magnitude",
        allocation: AllocationLike | None = None,
        granularity: Granularity = "weight",
        data: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        checks.fraction("sparsity", sparsity)
        checks.fraction("threshold", threshold, zero=False, one=True)
        checks.count("queue", queue, 2)
        checks.seed("seed", seed)
        most = 2 * min(sparsity, 1 - sparsity)
        if most <= threshold:
            warnings.warn(
                f"Any two masks of sparsity={sparsity} differ in at most {most:.4f} of "
                f"their weights, so that threshold={threshold} stops training as soon "
                "as possible. Choose a smaller `threshold`.",
                stacklevel=2,
            )
        chosen(criterion, allocation, granularity)
        if allocation is None:
            allocation = default_allocation(criterion, granularity)
        self.sparsity = sparsity
        self.threshold = threshold
        self.queue = queue
        self.criterion = criterion
        self.allocation = allocation
        self.granularity = granularity
        self.data = data
        self.seed = seed
        self._forget()

    def _forget(self) -> None:
        self.masks: Masks | None = None
        self.epoch: int | None = None
        self.steps: int | None = None
        self.steps_saved = 0
        self.distances: list[float] = []
        self.settled = False
        self._queue: deque[Masks] = deque(maxlen=self.queue)
        self._first: State = {}
        self._last: State = {}
        self._first_step = 0
        self._epochs = 0

    def start(self) -> None:
        """Reads the weights from which the training starts."""
        self._forget()
        masks = trained_masks(self.model)
        self._compared = list(masks)
        self._grouping = grouping.get(self.granularity).of(self.model, masks)
        self._first = get_state(self.model)
        self._first_step = steps_done(self.model.optimizer)
        rehearse(self.model, self.sparsity, **self._how())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.masks, self._last = self._masks(), get_state(self.model)
        self.epoch, self.steps = epoch, steps_done(self.model.optimizer)
        self._epochs += 1
        compared = Masks({name: self.masks[name] for name in self._compared})
        self._queue.append(self._grouping.left(compared))
        pairs = itertools.combinations(self._queue, 2)
        distances = [mask_distance(one, other) for one, other in pairs]
        if distances:
            self.distances.append(max(distances))
        if len(self._queue) == self.queue and max(distances) < self.threshold:
            self.settled = True
            self.model.stop_training = True
            per_epoch = (self.steps - self._first_step) / self._epochs
            self.steps_saved = round((self.params["epochs"] - epoch - 1) * per_epoch)

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        if not self.settled:
            last = f"{self.distances[-1]:.4f}" if self.distances else "not known yet"
            warnings.warn(
                f"After {self._epochs} epochs the masks still change: the largest "
                f"distance among the last {len(self._queue)} is {last}, and has to be "
                f"below threshold={self.threshold} among queue={self.queue}. `masks` "
                "are those of the last epoch. Train for longer, or choose a larger "
                "`threshold`.",
                stacklevel=2,
            )

    def ticket(self, rewind: bool = False) -> Ticket:
        """Returns the ticket: the masks, and the weights from which to train it.

        Args:
            rewind: whether the ticket starts from the weights before this training
                instead of those in which the masks were found.

        Raises:
            ValueError: if nothing has been trained yet.
        """
        if self.masks is None:
            raise ValueError(
                "There is no ticket before the first epoch has ended. Pass the "
                "callback to `fit`."
            )
        return Ticket(
            self.masks,
            self._first if rewind else self._last,
            step=self._first_step if rewind else self.steps or 0,
            architecture=architecture.to_text(self.model),
            card={
                "settings": {"granularity": self.granularity},
                "sparsity": self.masks.sparsity,
                "early_bird": {
                    "epoch": self.epoch,
                    "settled": self.settled,
                    "steps": self.steps,
                    "steps_saved": self.steps_saved,
                },
            },
        )

    def _masks(self) -> Masks:
        return masks_after(self.model, self.sparsity, **self._how())

    def _how(self) -> dict[str, Any]:
        return {
            "criterion": self.criterion,
            "allocation": self.allocation,
            "granularity": self.granularity,
            "data": self.data,
            "seed": self.seed,
            "frozen": False,
        }
