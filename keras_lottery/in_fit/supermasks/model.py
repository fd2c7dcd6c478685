"""A network that learns only which of its weights to keep."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lottery.checks import flag
from keras_lottery.checks import seed as check_seed
from keras_lottery.in_fit.supermasks.kinds import EdgePopup, kind_of
from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.internals.layers import set_untracked
from keras_lottery.keras_bridge.layers import named_masks, read_as
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.masks import Masks


@keras.saving.register_keras_serializable("keras_lottery")
class Supermask(keras.Model):
    """A masked network whose masks are trained instead of its weights.

    For every masked weight of the network there is a trainable variable in `scores`,
    by the weight's name. When this model is called, the network uses each weight as
    weight × mask (× factor with `rescale`), where the mask follows from the scores.
    All variables of the network are frozen except statistics, such as those of
    BatchNormalization. Bernoulli masks are drawn again at each call with
    `training=True`; all other calls use `masks()`. Weights that the network's own masks
    prune stay pruned.

    `learn_masks` makes one from an ordinary model.

    Args:
        network: a built masked model. It becomes part of this one.
        kind: how masks follow from scores, `"bernoulli"` or `"edge_popup"`.
        sparsity: the share of each layer's weights that `"edge_popup"` prunes; by
            default 0.5.
        rescale: whether the remaining weights are scaled up to make up for the others:
            by N_total / N_kept of the layer for `"bernoulli"`, and by its square root
            for `"edge_popup"`.
        seed: seed of the initial scores and of the random draws.

    Raises:
        ValueError: if the network is not masked or not built, or an argument is out of
            range.
    """

    _masker: Any
    _pairs: dict[str, tuple[keras.Variable, keras.Variable]]

    def __init__(
        self,
        network: keras.Model,
        kind: str = "bernoulli",
        sparsity: float | None = None,
        rescale: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        masker = kind_of(kind, sparsity)
        flag("rescale", rescale)
        if seed is not None:
            check_seed("seed", seed)
        checks.model("network", network)
        pairs = named_masks(network)
        _check(network, pairs, masker)
        # The network casts its inputs and weights itself.
        super().__init__(autocast=False, **kwargs)
        self.kind, self.sparsity, self.rescale = kind, sparsity, rescale
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.network = network
        for variable in network.variables:
            # Variables are frozen instead of layers, because a frozen layer would not
            # update its statistics.
            variable.trainable = False
        # Otherwise Keras would take the network's variables for this layer's own.
        set_untracked(self, "_masker", masker)
        set_untracked(self, "_pairs", pairs)
        self.scores = {
            name: self._new_scores(name, weight) for name, (_, weight) in pairs.items()
        }
        self.built = True

    def _new_scores(self, name: str, weight: keras.Variable) -> keras.Variable:
        return self.add_weight(
            name=f"{name.replace('/', '_')}_scores",
            shape=weight.shape,
            dtype=weight.dtype,
            initializer=lambda shape, dtype: ops.cast(
                self._masker.initial_scores(shape, self.seed_generator), dtype
            ),
            autocast=False,
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        weights = self.effective(self.seed_generator if training else None)
        values = {
            id(self._pairs[name][1]): ops.multiply(*pair)
            for name, pair in weights.items()
        }
        with read_as(values):
            return self.network(inputs, training=training)

    def effective(self, seed: Any = None) -> dict[str, tuple[Any, Any]]:
        """The masks, and the weights times their factor, by weight name.

        Args:
            seed: a `keras.random.SeedGenerator` to draw masks with; `None` for the
                masks of evaluation.

        Raises:
            ValueError: if the network is not masked any more.
        """
        found = {}
        for name, (alive, weight) in self._pairs.items():
            if weight.pruning_mask is not alive:
                raise ValueError(
                    f"The network of '{self.name}' has lost its masked layers. Call "
                    "`learned_ticket(model)` first: what it returns is stripped and "
                    "exported as any other ticket."
                )
            alive, weight = ops.convert_to_tensor(alive), _read(weight)
            mask = self._masker.mask(_read(self.scores[name]), alive, seed)
            if self.rescale:
                factor = self._masker.factor(mask, alive)
                weight = ops.multiply(weight, ops.cast(factor, weight.dtype))
            found[name] = mask, weight
        return found

    def masks(self) -> Masks:
        """The masks of evaluation: p > 0.5, or the highest scores."""
        return Masks(
            {
                name: ops.convert_to_numpy(mask)
                for name, (mask, _) in self.effective().items()
            }
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "kind": self.kind,
            "sparsity": self.sparsity,
            "rescale": self.rescale,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        network = keras.saving.deserialize_keras_object(
            config["network"], custom_objects=custom_objects
        )
        return cls(**{**config, "network": network})


def _read(variable: keras.Variable) -> Any:
    return ops.convert_to_tensor(variable, variable.dtype)


def _check(network: keras.Model, pairs: Any, masker: Any) -> None:
    if isinstance(network, Supermask) or not pairs:
        raise ValueError(
            "Expected `network` to be a masked model, such as `mask_model(model)`. "
            f"Received: {type(network).__name__} '{network.name}'"
        )
    if not isinstance(masker, EdgePopup):
        return
    for name, (mask, weight) in pairs.items():
        size, alive = int(np.prod(weight.shape)), np.count_nonzero(read(mask))
        if not 0 < masker.kept(size) <= alive:
            raise ValueError(
                f"Expected a sparsity that leaves weights of every layer. `{name}` has "
                f"{size}, of which {alive} are not pruned, and would keep "
                f"{masker.kept(size)}. Received: sparsity={masker.sparsity}"
            )
