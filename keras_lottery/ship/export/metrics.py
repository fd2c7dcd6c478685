"""Measures a file's outputs by the metrics that its model was compiled with."""

from typing import Any

import keras
from keras import layers

from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.ship.export.signature import Arrays, output_names, structure


class Metrics:
    """Computes the compiled metrics of a model from outputs that are given.

    Args:
        model: a compiled model.
        targets: the targets of its loss and metrics, same as in `evaluate`.
        compiled: the model that is compiled, if that is another one.

    Attributes:
        names: the names of the outputs.
        targets: the targets as given.
        model: a model that measures: it takes the outputs as inputs and returns them.
    """

    def __init__(
        self, model: keras.Model, targets: Any, compiled: keras.Model | None = None
    ) -> None:
        self.names, self.targets = output_names(model), targets
        given = compile_arguments(compiled or model)
        of = ("loss", "loss_weights", "metrics", "weighted_metrics")
        ends = [keras.Input(batch_shape=(None, *tensor.shape[1:]), dtype=tensor.dtype)
                for tensor in model.outputs]  # fmt: skip
        # The metrics of several outputs, which a Sequential model cannot have, are
        # named after the outputs' layers.
        names = getattr(model, "output_names", ["output"])
        if len(set(names)) < len(names):  # A layer is used twice.
            names = [f"output_{i}" for i in range(len(names))]
        passed = [
            layers.Identity(name=name, dtype=end.dtype)(end)
            for name, end in zip(names, ends, strict=True)
        ]
        outputs = keras.tree.pack_sequence_as(structure(model, "output"), passed)
        self.model = keras.Model(ends if len(ends) > 1 else ends[0], outputs)
        self.model.compile(
            **{name: keras.tree.map_structure(_anew, given[name]) for name in of},
            run_eagerly=True,
        )

    def of(self, outputs: Arrays) -> dict[str, float]:
        """The metrics by the names that `evaluate` gives them.

        If there are no others, the result is the loss without penalties of
        regularisers.
        """
        found = self.all(outputs)
        others = {k: float(v) for k, v in found.items() if not k.endswith("loss")}
        return others or {"loss": float(found["loss"])}

    def all(self, outputs: Arrays) -> dict[str, Any]:
        """Same as `of`, with all losses."""
        arrays = [outputs[name] for name in self.names]
        x = arrays if len(arrays) > 1 else arrays[0]
        return self.model.evaluate(x, self.targets, 256, verbose=0, return_dict=True)


def classifies(model: keras.Model) -> bool:
    """Whether a compiled model's loss or metrics are those of a classifier.

    >>> model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    >>> model.compile(loss="mse", metrics=["mae"])
    >>> classifies(model)
    False
    >>> model.compile(loss="bce")
    >>> classifies(model)
    True
    """
    given = compile_arguments(model)
    losses = [_name(keras.losses.get(each)) for each in _leaves(given["loss"])]
    metrics = [
        each if isinstance(each, str) else _name(each)
        for key in ("metrics", "weighted_metrics")
        for each in _leaves(given[key])
    ]
    of_classes = ("crossentropy", "hinge")
    return any(word in name for name in losses for word in of_classes) or any(
        "acc" in name for name in metrics
    )


def _leaves(given: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(given) if each is not None]


def _name(value: Any) -> str:
    """The name of a loss or metric, whether it is a function or an object."""
    name = getattr(value, "name", None) or getattr(value, "__name__", "")
    return f"{name} {type(value).__name__}".replace("_", "").lower()


def _anew(value: Any) -> Any:
    """A copy of a metric with a fresh state, which the model does not share."""
    if isinstance(value, keras.metrics.Metric):
        return type(value).from_config(value.get_config())
    return value
