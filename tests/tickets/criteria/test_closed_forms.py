"""Criteria of derivatives against their formulas, on a net of two layers.

Of (X W1) W2, with a BatchNormalization between the two or none, and the squared error.
Second derivatives are those of the formula of the first, by complex steps: exact.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery import criteria
from keras_lottery.keras_bridge.layers import get_masks, get_state, mask_model
from keras_lottery.pruning import prune, scored
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import Global

EPSILON = 1e-3
KINDS = "plain", "penalised", "normalised", "excluded"


def snapshot(kind):
    rng = np.random.default_rng(0)
    penalty = keras.regularizers.L1L2(0.5, 0.5)
    penalties = {"kernel_regularizer": penalty, "activity_regularizer": penalty}
    how = {"use_bias": False, **(penalties if kind == "penalised" else {})}
    norm = [layers.BatchNormalization(name="norm", epsilon=EPSILON)]
    model = mask_model(
        keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(4, name="hidden", **how),
                *norm * (kind == "normalised"),
                layers.Dense(2, name="output", **how),
            ]
        )
    )
    model.compile(loss="mse")
    for variable in model.weights:
        if "mask" not in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    prune(model, 0.2, "random")
    data = rng.normal(size=(6, 5)), rng.normal(size=(6, 2))
    data = tuple(array.astype("float32") for array in data)
    state = get_state(model)
    return Snapshot(get_masks(model), state, state, state, rng, model, data)


class Formulas:
    """The net in double precision."""

    def __init__(self, made):
        double = {n: a.astype("float64") for n, a in made.final.items()}
        self.weights = double["hidden/kernel"], double["output/kernel"]
        self.x, self.y = (array.astype("float64") for array in made.data)
        norm = [n for n in ("gamma", "beta", "moving_mean", "moving_variance")]
        self.norm = [double[f"norm/{n}"] for n in norm if f"norm/{n}" in double]

    def gradients(self, weights, x, y, training=False):
        """∂L/∂W1 and ∂L/∂W2; no absolute values, so that complex numbers pass."""
        w1, w2 = weights
        h = x @ w1
        if self.norm:
            gamma, beta, mean, variance = self.norm
            if training:
                mean = h.mean(0)
                variance = ((h - mean) ** 2).mean(0)
            deviation = (variance + EPSILON) ** 0.5
            unit = (h - mean) / deviation
            h = gamma * unit + beta
        slope = 2 * (h @ w2 - y) / y.size
        back = slope @ w2.T
        if self.norm:
            back = back * gamma
            if training:
                back = back - back.mean(0) - unit * (back * unit).mean(0)
            back = back / deviation
        return x.T @ back, h.T @ slope

    def of_examples(self):
        for i in range(len(self.x)):
            part = slice(i, i + 1)
            yield self.gradients(self.weights, self.x[part], self.y[part])

    def snip(self, masks):
        found = self.gradients(self.weights, self.x, self.y, training=True)
        return [abs(w * g) for w, g in zip(self.weights, found, strict=True)]

    def taylor(self, masks):
        sizes = [[abs(g) for g in both] for both in self.of_examples()]
        means = (np.mean(each, 0) for each in zip(*sizes, strict=True))
        return [abs(w) * g for w, g in zip(self.weights, means, strict=True)]

    def fisher(self, masks):
        squares = [[g**2 for g in both] for both in self.of_examples()]
        means = (np.mean(each, 0) for each in zip(*squares, strict=True))
        return [w**2 * g / 2 for w, g in zip(self.weights, means, strict=True)]

    def grasp(self, masks):
        found = self.gradients(self.weights, self.x, self.y, training=True)
        step = 1e-30
        moved = [
            w + 1j * step * g * mask
            for w, g, mask in zip(self.weights, found, masks, strict=True)
        ]
        product = self.gradients(moved, self.x, self.y, training=True)
        return [w * p.imag / step for w, p in zip(self.weights, product, strict=True)]

    def synflow(self, masks):
        w1, w2 = (abs(w) for w in self.weights)
        scale = 1.0
        if self.norm:
            gamma, _, _, variance = self.norm
            scale = abs(gamma) / (variance + EPSILON) ** 0.5
        return [w1 * scale * w2.sum(1), (w2.T * scale * w1.sum(0)).T]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["snip", "iterative_snip", "taylor", "fisher", "grasp", "synflow"]
)
def test_scores_are_those_of_the_formula(name, kind):
    made = snapshot(kind)
    masks = [made.masks[n] for n in ("hidden/kernel", "output/kernel")]
    exclude = ["output"] if kind == "excluded" else []
    if exclude:
        masks[1] = np.zeros_like(masks[1])
    expected = getattr(Formulas(made), name.removeprefix("iterative_"))(masks)
    scores = scored(criteria.get(name), made, Global(exclude))
    for weight, mask, array in zip(made.masks, masks, expected, strict=True):
        wanted = np.where(mask, array, 0)
        found = np.where(mask, scores[weight], 0)
        np.testing.assert_allclose(
            found, wanted, rtol=1e-4, atol=2e-6 * abs(wanted).max()
        )
    if exclude:
        assert not scores["output/kernel"].any()


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.GroupNormalization(2),
    ],
)
def test_second_derivatives_through_normalisation(layer):
    """Against differences of first ones, which are right."""
    from keras_lottery.keras_bridge.gradients import (
        gradients,
        hessian_vector_product,
        training_loss,
    )

    rng = np.random.default_rng(0)
    layer = type(layer).from_config(layer.get_config())
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="hidden"), layer, layers.Dense(2)]
    )
    model = mask_model(model)
    model.compile(loss="mse")
    x, y = rng.normal(size=(4, 6)).astype("float32"), np.ones((4, 2), "float32")
    state = get_state(model)
    vector = {"hidden/kernel": rng.normal(size=(6, 4)).astype("float32")}
    found = hessian_vector_product(model, x, y, vector, scalar=training_loss)
    above, below = (
        gradients(
            model,
            x,
            y,
            scalar=training_loss,
            state={
                **state,
                "hidden/kernel": state["hidden/kernel"] + c * vector["hidden/kernel"],
            },
        )["hidden/kernel"]
        for c in (1e-3, -1e-3)
    )
    expected = (above.astype("float64") - below) / 2e-3
    # Its moments are differences of squares, which cancel.
    near = 2e-2 if keras.backend.backend() == "torch" else 3e-3
    np.testing.assert_allclose(
        found["hidden/kernel"], expected, rtol=0, atol=near * abs(expected).max()
    )
