"""Makes a model that learns its masks, and turns the learned masks into a ticket."""

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
    """Returns a copy of a model that learns masks instead of weights.

    The copy is trained by `fit` like any model; its trainable variables are scores, one
    for each weight that `mask_model` would mask. Weights, biases, scales and offsets
    keep their values; the statistics of normalisation are still updated. The given
    model is left untouched; if it is compiled, the copy is compiled in the same way,
    with a fresh optimizer.

    Scores need larger steps than weights: use Adam with a learning rate that starts at
    about 0.04 for `"bernoulli"` and 0.01 for `"edge_popup"` and falls to zero.
    Evaluation, predictions and `learned_ticket` use the masks that follow from the
    scores, without random draws; the paper averages over drawn masks instead.

    Args:
        model: a built model, preferably not trained: masks are learned for its current
            weights. Weights that are already pruned stay pruned.
        kind: how masks follow from scores:

            - `"bernoulli"`: in training each weight is kept with the probability
              sigmoid(score); in evaluation it is kept if that is above 0.5.
            - `"edge_popup"`: the weights with the highest scores in each layer are
              kept.
        sparsity: the share of each layer's weights that `"edge_popup"` prunes; by
            default 0.5. Bernoulli masks learn their sparsity.
        rescale: whether the remaining weights are scaled up to make up for the others:
            by N_total / N_kept of the layer for `"bernoulli"` ("dynamic weight
            rescaling"), and by its square root for `"edge_popup"` ("scaled" weights).
        signed_constant: whether every weight is replaced by ±σ with its own sign, where
            σ is the standard deviation of the layer's weights.
        prunable: which layers to mask, see `mask_model`.
        seed: seed of the initial scores and of the random draws.

    Raises:
        ValueError: if the model is not built or cannot be copied, if it has no layer to
            mask, or if an argument is out of range.

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
    """Returns the ticket with the masks that a model of `learn_masks` has learned.

    Its masked model gives exactly the outputs that `model` gives in evaluation: factors
    and signed constants are part of its weights, which were not trained. It can be
    saved, exported and compacted like any ticket. To train its weights, compile it with
    a learning rate for weights, which is smaller than that for scores.

    Args:
        model: a model returned by `learn_masks`.
        seed: seed with which to draw a Bernoulli mask, as in training, instead of
            keeping each weight whose probability is above 0.5.

    Raises:
        ValueError: if `model` was not returned by `learn_masks`, or if `seed` is given
            for masks that are not random.
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
