"""From a model to one that learns its masks, and from that to a ticket."""

import keras
import numpy as np
from keras import ops

from keras_lottery import checks
from keras_lottery.in_fit.supermasks.kinds import kind_of
from keras_lottery.in_fit.supermasks.model import Supermask
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers import (
    get_state,
    mask_model,
    named_masks,
    set_state,
)
from keras_lottery.keras_bridge.layers.convert import Prunable, compile_alike
from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.masks import Masks
from keras_lottery.tickets import Ticket


def learn_masks(
    model: keras.Model,
    kind: str = "bernoulli",
    sparsity: float | None = None,
    rescale: bool = True,
    signed_constant: bool = False,
    prunable: Prunable = None,
    seed: int | None = None,
) -> Supermask:
    """Returns a copy of a model that trains which weights to keep, and none of them.

    The copy is trained by `fit` like any model; its trainable variables are scores, one
    for each weight that `mask_model` would mask. Weights, biases and normalisation
    keep their values, and statistics of normalisation go on. The given model is left
    untouched; if it is compiled, the copy is compiled alike, with a fresh optimizer.

    Scores need larger steps than weights: take Adam with a learning rate of about 0.04
    for `"bernoulli"` and 0.01 for `"edge_popup"`, which falls to zero. Evaluation,
    predictions and `learned_ticket` use the masks of the scores as they are, without
    draws; the paper averages over drawn masks instead.

    Args:
        model: a built model, best not trained. Its initial weights are those that
            masks are learned for. What it has pruned stays pruned.
        kind: how masks are made of scores:

            - `"bernoulli"`: in training each weight is kept with the probability
              sigmoid(score); in evaluation if that is above 0.5.
            - `"edge_popup"`: the weights of the highest scores of each layer are kept.
        sparsity: the share of each layer's weights that `"edge_popup"` leaves out; by
            default 0.5. Bernoulli masks learn theirs.
        rescale: whether the weights that are left make up for the others: × N_total /
            N_kept of the layer for `"bernoulli"` ("dynamic weight rescaling"), × its
            square root for `"edge_popup"` ("scaled" weights).
        signed_constant: whether every weight is ±σ with the sign it has, where σ is the
            standard deviation of the layer's weights.
        prunable: which layers to mask, see `mask_model`.
        seed: seed of the initial scores and of the draws.

    Raises:
        ValueError: if the model is not built or cannot be copied, no layer is to be
            masked, or an argument is out of range.

    Reference:
        Zhou et al. 2019, "Deconstructing lottery tickets: zeros, signs, and the
        supermask", section 5; Ramanujan et al. 2020, "What's hidden in a randomly
        weighted neural network?", section 3.

    Example:

    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> supermask = learn_masks(model, "edge_popup", sparsity=0.9)
    >>> [variable.name for variable in supermask.trainable_variables]
    ['dense_kernel_scores']
    >>> learned_ticket(supermask).masks.kept
    10
    """
    kind_of(kind, sparsity)
    checks.flag("rescale", rescale)
    checks.flag("signed_constant", signed_constant)
    if seed is not None:
        checks.seed("seed", seed)
    if isinstance(model, Supermask):
        raise ValueError(
            "Expected a model whose masks are not learned yet. Received: Supermask "
            f"'{model.name}'. Take its `network`, or `learned_ticket(model)`."
        )
    masked = mask_model(model, prunable)
    network = duplicate(masked)
    if signed_constant:
        _make_constant(network)
    learned = Supermask(network, kind, sparsity, rescale, seed, name=model.name)
    compile_alike(masked, learned)
    return learned


def learned_ticket(model: Supermask, seed: int | None = None) -> Ticket:
    """The ticket of the masks that were learned.

    Its masked model gives exactly the outputs that `model` gives in evaluation: factors
    and signed constants are in its weights, which were not trained. It is saved,
    exported and made compact like any ticket. To train its weights, compile it with a
    learning rate for weights, as that of scores is larger.

    Args:
        model: a model of `learn_masks`.
        seed: seed to draw a Bernoulli mask with, as in training, instead of keeping
            what is more probable than not.

    Raises:
        ValueError: if `model` is no such model, or there is nothing to draw.
    """
    if not isinstance(model, Supermask):
        raise ValueError(
            "Expected a model returned by `learn_masks`. Received: "
            f"model={model!r}. For other models, use `prune` or a search."
        )
    if seed is not None and model.kind != "bernoulli":
        raise ValueError(
            f"Masks of kind {model.kind!r} are not random. Received: seed={seed}. "
            "Leave it out."
        )
    if seed is not None:
        checks.seed("seed", seed)
    draw = None if seed is None else keras.random.SeedGenerator(seed)
    state, kept = get_state(model.network), {}
    for name, (mask, weight) in model.effective(draw).items():
        kept[name] = ops.convert_to_numpy(mask)
        state[name] = ops.convert_to_numpy(weight)
    masks = Masks(kept)
    network = duplicate(model.network)
    set_state(network, state, masks)
    compile_alike(model, network)
    state = get_state(network)
    card = {
        "sparsity": masks.sparsity,
        "learned": {"kind": model.kind, "rescale": model.rescale, "draw": seed},
    }
    return Ticket(
        masks,
        weights=state,
        trained=state,
        architecture=architecture.to_text(network),
        card=card,
    )


def _make_constant(network: keras.Model) -> None:
    for name, (mask, weight) in named_masks(network).items():
        values, alive = read(weight), read(mask)
        deviation = float(np.std(values[alive]))
        if not deviation:
            raise ValueError(
                "A constant of the layer's standard deviation needs weights that "
                f"differ. Received: `{name}` with equal ones, and signed_constant=True"
            )
        constant = np.copysign(deviation, values).astype(values.dtype)
        weight.assign(np.where(alive, constant, 0))
