"""Trains tickets with pruned filters as the smaller networks that they are.

A pruned filter has no effect any more: no layer reads it, and its weights have no
gradients. Training the network without it gives the same results up to the rounding of
sums, and takes less time. The trained weights are then put back into the whole network.
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
"""Whether tickets with pruned filters are trained as the smaller networks they are.

`"auto"`: where the results are the same up to rounding, and the training saves more
time than compiling another network takes; `True`: wherever it is possible.
"""

WORTH = 2e11
"""With `"auto"`, a training must save this many multiply-adds to be made smaller.

Compiling another network takes seconds, in which a core does about as many.
"""

PASSES = 3
"""The cost of a step in forward passes: the backward pass costs as much as two."""

AT_ONCE = 2
"""How many smaller networks are kept for later tickets."""

METHODS = ("train_step", "test_step", "make_train_function", "make_test_function")

# These update a weight only by its value, its gradient and its slots.
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
# These are sums over weights, to which pruned weights contribute zero.
PENALTIES = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)
# These do not depend on the size of a layer.
CONSTRAINTS = (
    keras.constraints.MaxNorm,
    keras.constraints.MinMaxNorm,
    keras.constraints.NonNeg,
    keras.constraints.UnitNorm,
)
# These read only metrics and the learning rate, never weights.
CALLBACKS = {
    keras.callbacks.CSVLogger,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.TerminateOnNaN,
}


def check_compact(compact: Compact) -> None:
    """Raises ValueError if `compact` is neither `"auto"` nor a boolean."""
    if isinstance(compact, str):
        checks.choice("compact", compact, ["auto"], "True or False")
    else:
        checks.flag("compact", compact)


class Compacted:
    """Trains tickets in smaller networks.

    Args:
        model: the masked model, compiled and not yet trained.
        make: makes the engine of a smaller model.
        batch_size: examples in a step.
        callbacks: the engine's callbacks.
        always: whether to train tickets in smaller networks however little that saves,
            and even where random numbers change, or the optimizer or callbacks see
            other values.

    Raises:
        ValueError: if the model's tickets cannot be trained in smaller networks; the
            message says why.
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
        keep_at: Sequence[int],
        checkpoint: Checkpoint | None = None,
    ) -> "Training | None":
        """Trains a ticket, see `Engine.train`; returns `None` if it saves too little.

        The biases, scales and moving averages of the removed filters keep their initial
        values in the returned states: nothing depends on them.
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
        how = progress, asked if stop else None, keep_at, checkpoint
        made = engine.train(small, seed, *how)
        return dataclasses.replace(
            made,
            final=back(made.final),
            rewind_point=back(made.rewind_point) if made.rewind_point else {},
            passed={step: back(s) for step, s in made.passed.items()},
        )

    def _saved(self, kept: np.ndarray) -> float:
        """The number of multiply-adds that a step of a smaller network saves."""
        cost = self.smaller.cost
        saved = cost().multiply_adds - cost(kept).multiply_adds
        return float(PASSES * self.batch_size * saved)

    def _engine(self, model: keras.Model) -> "Engine":
        """The engine of a smaller network, made anew unless a recent ticket used it."""
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
    """Makes a `Compacted`, or returns `None`, where a warning says why not.

    Args:
        model, make, batch_size, callbacks: see `Compacted`.
        steps: the length of the dense training in steps.
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
    """An upper bound on the model's multiply-adds: all weights at every position."""
    shapes = [shape for _, layer in walk(model) for shape in output_shapes(layer)]
    places = [math.prod(size or 1 for size in shape[1:-1]) for shape in shapes]
    return float(model.count_params()) * max(places, default=1)


def _worth() -> float:
    return WORTH * (100 if backends.current().on_accelerator() else 1)


def _differs(
    smaller: Smaller, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]
) -> str | None:
    """Why training without the pruned filters would differ, or `None`."""
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
    """Whether a random layer draws a number for each of its channels."""
    rates = ("rate", "drop_rate", "stddev")
    return any(getattr(layer, name, 0) for name in rates) and (
        type(layer).__name__ != "StochasticDepth"
    )
