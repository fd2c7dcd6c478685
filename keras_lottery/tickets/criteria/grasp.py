"""The effect of a weight on how fast the loss falls, before training."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_lottery.keras_bridge.gradients import check_compiled
from keras_lottery.keras_bridge.internals.models import compute_loss, without_penalties
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Scores


@dataclass(frozen=True)
class Grasp:
    """w (H g): keeps the weights without which the gradient would be smaller.

    g is the gradient and H the Hessian of the compiled loss with respect to the
    remaining weights, on all of the data, in training mode and without penalties, same
    as in `snip`. To first order, removing weights w changes the gradient flow gᵀg by -2
    Σ w (H g). The paper calls S = -w (H g) the score and prunes the weights with the
    largest; here, larger means keep.

    The logits of a classifier are divided by a temperature first, as in the authors'
    experiments. Without it, the weights that are kept give large and wrong outputs, and
    the pruned network hardly trains. The loss is then multiplied by the temperature,
    which changes no ranks.

    Args:
        temperature: the number that logits are divided by if the loss is one of Keras's
            cross-entropies over classes; for other losses, outputs are not changed.

    Reference:
        Wang et al. 2020, "Picking winning tickets before training by preserving
        gradient flow": the score S, with its sign turned; temperature 200.

    Example:

    >>> import keras_lottery as kl
    >>> kl.criteria.get("grasp")
    Grasp(temperature=200.0)
    """

    temperature: float = 200.0

    def __call__(self, snapshot: Snapshot) -> Scores:
        snapshot.training_data()  # Raises if the snapshot has no model.
        check_compiled(snapshot.model)
        scalar = partial(_loss, self.temperature)
        gradients = snapshot.gradients(scalar=scalar)
        alive = {name: gradients[name] * mask for name, mask in snapshot.masks.items()}
        products = snapshot.hessian_vector_product(alive, scalar=scalar)
        return {name: snapshot.final[name] * products[name] for name in snapshot.masks}


def _loss(temperature: float, model: keras.Model, x: Any, y: Any) -> Any:
    """Returns the compiled loss of a batch for outputs softened by the temperature."""
    with without_penalties(model):
        return _softened_loss(temperature, model, x, y)


def _softened_loss(temperature: float, model: keras.Model, x: Any, y: Any) -> Any:
    outputs = model(x, training=True)
    logits = _are_logits(model)
    if logits is None:
        return compute_loss(model, x, y, outputs)
    soften = partial(_softened, temperature, logits)
    outputs = keras.tree.map_structure(soften, outputs)
    # The factor restores the size that derivatives have without the temperature: in
    # float16 they would be rounded to zero otherwise. It changes no ranks.
    loss = temperature * compute_loss(model, x, y, outputs)
    # The losses that layers add themselves are not softened.
    return loss - (temperature - 1) * sum(model.losses)


def _softened(temperature: float, logits: bool, outputs: Any) -> Any:
    if logits:
        return outputs / temperature
    return ops.softmax(ops.log(outputs + keras.config.epsilon()) / temperature)


def _are_logits(model: keras.Model) -> bool | None:
    """Whether the loss reads outputs as logits; None if it is no loss over classes."""
    if isinstance(model.loss, dict | list | tuple):
        return None
    loss = keras.losses.get(model.loss)
    function = getattr(loss, "fn", loss)
    classes = "categorical_crossentropy", "sparse_categorical_crossentropy"
    if function not in [getattr(keras.losses, name) for name in classes]:
        return None
    return isinstance(loss, keras.losses.Loss) and bool(
        loss.get_config().get("from_logits", False)
    )


grasp = Grasp()
