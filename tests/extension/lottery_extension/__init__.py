"""What a package of somebody else's adds, with no edit to keras_lottery."""

import dataclasses

import keras
import numpy as np

import keras_lottery as kl


@kl.criteria.register("mean_magnitude")
def mean_magnitude(snapshot):
    """The mean of a weight's magnitudes before and after training."""
    return {
        name: (np.abs(snapshot.initial[name]) + np.abs(snapshot.final[name])) / 2
        for name in snapshot.masks
    }


@kl.controls.register("flip_signs")
def flip_signs(ticket, snapshot):
    """The same masks, every weight with the other sign."""
    flipped = {name: -ticket.weights[name] for name in ticket.masks}
    return dataclasses.replace(ticket, weights={**ticket.weights, **flipped})


@kl.schedules.register("straight")
def straight(rate=0.2, levels=4):
    """Prunes as much at each level as at the first, as long as weights are left."""
    shares = [rate * level for level in range(1, levels + 1)]
    return kl.schedules.Schedule(tuple(share for share in shares if share < 0.99))


@kl.allocation.register("square_root")
def square_root(scores, masks, sparsity):
    """Layers keep weights in proportion to the square roots of their sizes."""
    roots = {name: mask.size**0.5 for name, mask in masks.items()}
    keep = kl.allocation.kept_after(masks, sparsity)
    shares = {name: keep * root / sum(roots.values()) for name, root in roots.items()}
    return kl.allocation.keep_by_layer(scores, masks, keep, shares)


@keras.saving.register_keras_serializable("lottery_extension")
class Gated(keras.layers.Layer):
    """A dense layer with a gate for each output."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        shape = (input_shape[-1], self.units)
        self.values = self.add_weight(shape=shape, name="values")
        self.gates = self.add_weight(shape=shape, name="gates")

    def call(self, x):
        return keras.ops.matmul(x, self.values) * keras.ops.sigmoid(
            keras.ops.matmul(x, self.gates)
        )

    def get_config(self):
        return {**super().get_config(), "units": self.units}


MaskedGated = kl.register_masked(Gated, weights=("values", "gates"))
