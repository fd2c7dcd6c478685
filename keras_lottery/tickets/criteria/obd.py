"""The second-order effect of a weight on the loss, from the loss's curvature."""

import itertools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.keras_bridge.gradients import length
from keras_lottery.keras_bridge.layers.recurrent import (
    at_rest,
    batch_size_of,
    check_whole_batches,
)
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores
from keras_lottery.tickets.criteria.batches import BATCHES, batches, mean_over_batches

_CATEGORICAL = ("sparse_categorical_crossentropy", "categorical_crossentropy")
_LOSSES = (*_CATEGORICAL, "binary_crossentropy", "mean_squared_error")


def obd(snapshot: Snapshot) -> Scores:
    """h w² / 2: keeps the weights whose removal raises the loss most at a minimum.

    h is the diagonal of the Gauss-Newton matrix of the loss on all of the data. It is
    estimated from at least 100 gradients, each of a batch whose targets are drawn from
    the model's predictions: for batches of n examples, n times the mean square of these
    gradients has the expectation h. In networks of ReLUs, h is the diagonal of the
    Hessian, wherever the Hessian exists.

    Raises:
        ValueError: if the loss is neither a cross-entropy nor the mean squared error of
            one output, or there are no data.

    Reference:
        LeCun et al. 1990, "Optimal brain damage": the saliency h_kk u_k² / 2, with the
        Levenberg-Marquardt approximation of h. Drawn targets: Martens 2020, "New
        insights and perspectives on the natural gradient method".
    """
    model = snapshot.model
    _loss_of(model)
    x, _ = snapshot.training_data()
    size = batch_size_of(model) or 1
    check_whole_batches(model, length(x))
    some = keras.tree.map_structure(lambda array: array[:size], x)
    with at_rest(model):
        shape = ops.shape(model(some, training=False))[1:]
    uniform = snapshot.rng.random((length(x), *shape), "float32")
    once = list(batches(model, x, uniform))
    drawn = itertools.chain(
        once,
        # If there are few batches, they are repeated with other targets.
        (
            (part, snapshot.rng.random(u.shape, "float32"))
            for _ in range(math.ceil(BATCHES / len(once)) - 1)
            for part, u in once
        ),
    )
    mean = mean_over_batches(snapshot, np.square, drawn, _drawn_loss)
    return {name: mean[name] * snapshot.final[name] ** 2 / 2 for name in snapshot.masks}


def _loss_of(model: keras.Model) -> tuple[str, bool]:
    """Returns the loss's name, and whether it takes logits."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    name = getattr(getattr(loss, "fn", loss), "__name__", "")
    if name not in _LOSSES:
        raise ValueError(
            f"The criterion 'obd' needs a model of one output, compiled with one of "
            f"the losses {_LOSSES}. Received: loss={loss!r}"
        )
    return name, config.get("from_logits", False)


def _drawn_loss(model: keras.Model, x: Any, uniform: Any) -> Any:
    """Returns the loss for targets that uniform numbers draw from the predictions.

    The loss is multiplied by the square root of the number of targets. The square of
    the gradient then has the scale of the Gauss-Newton matrix of their mean.
    """
    name, logits = _loss_of(model)
    outputs = ops.cast(model(x, training=False), "float32")
    still = ops.stop_gradient(outputs)
    count = math.prod(uniform.shape)
    if name == "mean_squared_error":
        # The variance is 1/2, because the squared error is the negative log-density of
        # a normal distribution with that variance, up to a constant.
        targets = still + math.sqrt(0.5) * ops.sign(uniform - 0.5)
        losses = ops.square(outputs - targets)
    elif name == "binary_crossentropy":
        share = ops.sigmoid(still) if logits else still
        targets = ops.cast(uniform < share, "float32")
        losses = ops.binary_crossentropy(targets, outputs, logits)
    else:
        count //= uniform.shape[-1]
        shares = ops.cumsum(ops.softmax(still) if logits else still, -1)
        below = shares < uniform[..., :1] * shares[..., -1:]
        targets = ops.sum(ops.cast(below, "int32"), -1)
        losses = ops.sparse_categorical_crossentropy(targets, outputs, logits)
    return math.sqrt(count) * ops.mean(losses)
