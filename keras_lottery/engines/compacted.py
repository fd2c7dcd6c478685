"""Tickets of filters, trained as the smaller networks that they are.

What a filter was pruned of can do nothing any more: nothing reads it, and its weights
have no gradients. A training without it is the same up to the rounding of sums, takes
less time, and is put back into the whole network.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.engines.checkpoint import Checkpoint
from keras_lottery.engines.distributed import is_distributed
from keras_lottery.engines.record import Reached
from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.graph import output_shapes
from keras_lottery.keras_bridge.internals.graph import is_graph
from keras_lottery.keras_bridge.internals.optimizers import innermost
from keras_lottery.keras_bridge.layers import State, walk
from keras_lottery.masks import Masks
from keras_lottery.structured.smaller import Smaller
from keras_lottery.tickets import Ticket

if TYPE_CHECKING:
    from keras_lottery.engines.engine import Engine
    from keras_lottery.engines.task import Training

Compact = bool | Literal["auto"]
"""Whether tickets of filters are trained as the smaller networks that they are.

`"auto"`: where the results are the same up to rounding, and it is worth compiling
another network; `True`: wherever it can be done.
"""

WORTH = 2e11
"""From so many multiply-adds on that a training saves, it is made smaller by itself.

Compiling another network takes seconds, in which a core makes so many.
"""

PASSES = 3
"""A step is a pass forward, and one back that costs twice as much."""

AT_ONCE = 2
"""How many smaller networks are kept for the next tickets."""

METHODS = ("train_step", "test_step", "make_train_function", "make_test_function")

# Their update of a weight depends only on the weight, its gradient and its slots.
ELEMENTWISE = {
    keras.optimizers.SGD,
    keras.optimizers.RMSprop,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adadelta,
    keras.optimizers.Adagrad,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.Lion,
}
# Sums over what is zero where weights are pruned.
PENALTIES = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)
# They look at no size of anything.
CONSTRAINTS = (
    keras.constraints.MaxNorm,
    keras.constraints.MinMaxNorm,
    keras.constraints.NonNeg,
    keras.constraints.UnitNorm,
)
# They look at numbers of the training, and at no weights.
CALLBACKS = {
    keras.callbacks.CSVLogger,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.TerminateOnNaN,
}


def check_compact(compact: Compact) -> None:
    """Raises ValueError if it is neither `"auto"` nor a boolean."""
    if isinstance(compact, str):
        checks.choice("compact", compact, ["auto"], "True or False")
    else:
        checks.flag("compact", compact)


class Compacted:
    """Trains tickets in smaller networks.

    Args:
        model: the masked model, compiled and without a step of training.
        make: makes the engine of a smaller model.
        batch_size: examples in a step.
        callbacks: those of the engine.
        always: whether tickets are trained so whatever that saves, and also where
            random numbers, or what an optimizer or callbacks see, become others.

    Raises:
        ValueError: if the model's tickets cannot be trained so; the message says why.
    """

    def __init__(
        self,
        model: keras.Model,
        make: Callable[[keras.Model], "Engine"],
        batch_size: int,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        always: bool = False,
    ) -> None:
        if not is_graph(model):
            raise ValueError(f"the model is a {type(model).__name__} of your own")
        if own := sorted(name for name in METHODS if name in vars(model)):
            raise ValueError(f"the model has its own `{own[0]}`")
        if is_distributed(model):
            raise ValueError("the training is distributed")
        self.smaller = Smaller(model)
        if not always and (reason := _differs(self.smaller, model, callbacks)):
            raise ValueError(reason)
        self.make = make
        self.batch_size = batch_size
        self.always = always
        self._engines: list[tuple[str, Engine]] = []

    def train(
        self,
        ticket: Ticket,
        seed: int,
        progress: Callable[[Reached], None],
        stop: Callable[[State], bool] | None,
        checkpoints: Sequence[int],
        checkpoint: Checkpoint | None = None,
    ) -> "Training | None":
        """Trains a ticket, see `Engine.train`; `None` if that is not worth it.

        What filters that are gone have beside their weights (biases, scales, moving
        averages) is in the states as it was at the start: nothing depends on it.
        """
        kept = self.smaller.kept(ticket.masks)
        if kept.all():
            return None
        if not self.always and self._saved(kept) * ticket.steps < _worth():
            return None
        part = self.smaller.part(kept)
        start = {
            name: array * ticket.masks[name] if name in ticket.masks else array
            for name, array in ticket.weights.items()
        }
        small = dataclasses.replace(
            ticket, masks=Masks(part.cut(ticket.masks)), weights=part.cut(start)
        )

        def back(state: State) -> State:
            return part.put_back(state, start)

        def asked(state: State) -> bool:
            return stop is not None and stop(back(state))

        engine = self._engine(part.model)
        how = progress, asked if stop else None, checkpoints, checkpoint
        made = engine.train(small, seed, *how)
        return dataclasses.replace(
            made,
            final=back(made.final),
            rewind_point=back(made.rewind_point) if made.rewind_point else {},
            checkpoints={step: back(s) for step, s in made.checkpoints.items()},
        )

    def _saved(self, kept: np.ndarray) -> float:
        """Multiply-adds that a step of a smaller network saves."""
        cost = self.smaller.cost
        saved = cost().multiply_adds - cost(kept).multiply_adds
        return float(PASSES * self.batch_size * saved)

    def _engine(self, model: keras.Model) -> "Engine":
        """The engine of a smaller network, which the last tickets may have had."""
        config = model.to_json()
        for known, engine in self._engines:
            if known == config:
                return engine
        del self._engines[AT_ONCE - 1 :]
        self._engines.insert(0, (config, self.make(model)))
        return self._engines[0][1]


def compacted(
    model: keras.Model,
    make: Callable[[keras.Model], "Engine"],
    batch_size: int,
    steps: int,
    callbacks: Sequence[keras.callbacks.Callback],
    compact: Compact,
) -> Compacted | None:
    """What trains tickets in smaller networks, or `None`; a warning says why not.

    Args:
        model, make, batch_size, callbacks: see `Compacted`.
        steps: of the dense training.
        compact: see `Compact`.
    """
    if not compact:
        return None
    always = compact is True
    if not always and PASSES * batch_size * steps * _at_most(model) < _worth():
        return None
    try:
        return Compacted(model, make, batch_size, callbacks, always)
    except ValueError as error:
        warnings.warn(
            "Tickets of filters are trained in the whole network, with masks: "
            f"{str(error).rstrip('.')}.",
            stacklevel=3,
        )
        return None


def _at_most(model: keras.Model) -> float:
    """No fewer than the model's multiply-adds: all weights at all places of a map."""
    shapes = [shape for _, layer in walk(model) for shape in output_shapes(layer)]
    places = [math.prod(size or 1 for size in shape[1:-1]) for shape in shapes]
    return float(model.count_params()) * max(places, default=1)


def _worth() -> float:
    return WORTH * (100 if backends.current().on_accelerator() else 1)


def _differs(
    smaller: Smaller, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]
) -> str | None:
    """What would make another training of it without the filters, or `None`."""
    optimizer = innermost(model.optimizer)
    if type(optimizer) not in ELEMENTWISE:
        return f"{type(optimizer).__name__} looks at whole weights"
    for callback in callbacks:
        if type(callback) not in CALLBACKS:
            return f"{type(callback).__name__} would see the smaller network"
    smaller.cost()  # raises where sizes are not known
    for path, layer in smaller.layers():
        if getattr(layer, "activity_regularizer", None) is not None:
            return f"'{path}' has an activity regulariser"
        if getattr(layer, "seed_generator", None) is not None and _draws(layer):
            return f"'{path}' draws a random number for each channel"
    masked = smaller.masked
    for name, variable in smaller.shrinking.items():
        penalty, constraint = variable.regularizer, variable.constraint
        if penalty is not None and not (name in masked and type(penalty) in PENALTIES):
            return f"the regulariser of '{name}' looks at filters that are gone"
        if constraint is not None and not (
            name in masked and type(constraint) in CONSTRAINTS
        ):
            return f"the constraint of '{name}' looks at filters that are gone"
    return None


def _draws(layer: Any) -> bool:
    """Whether a random layer draws as many numbers as it has channels."""
    rates = ("rate", "drop_rate", "stddev")
    return any(getattr(layer, name, 0) for name in rates) and (
        type(layer).__name__ != "StochasticDepth"
    )
