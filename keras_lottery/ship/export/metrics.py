"""What a model was compiled to be measured by, measured on a file's outputs."""

from typing import Any

import keras
from keras import layers

from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.ship.export.signature import Arrays, output_names, structure


class Metrics:
    """The metrics that a model was compiled with, of outputs that are there already.

    Args:
        model: a compiled model.
        targets: what its loss and metrics take, as in `evaluate`.
        compiled: the model that is compiled, if that is another one.

    Attributes:
        names: of the outputs.
        targets: as given.
        model: what measures: it takes the outputs and hands them on.
    """

    def __init__(
        self, model: keras.Model, targets: Any, compiled: keras.Model | None = None
    ) -> None:
        self.names, self.targets = output_names(model), targets
        given = compile_arguments(compiled or model)
        of = ("loss", "loss_weights", "metrics", "weighted_metrics")
        ends = [keras.Input(batch_shape=(None, *tensor.shape[1:]), dtype=tensor.dtype)
                for tensor in model.outputs]  # fmt: skip
        # Metrics of several outputs, which a Sequential has none of, are called after
        # their layers.
        names = getattr(model, "output_names", ["output"])
        if len(set(names)) < len(names):  # A layer that is used twice.
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

        The loss, without penalties of regularisers, where there is no other.
        """
        found = self.all(outputs)
        others = {k: float(v) for k, v in found.items() if not k.endswith("loss")}
        return others or {"loss": float(found["loss"])}

    def all(self, outputs: Arrays) -> dict[str, Any]:
        """The same with every loss."""
        arrays = [outputs[name] for name in self.names]
        x = arrays if len(arrays) > 1 else arrays[0]
        return self.model.evaluate(x, self.targets, 256, verbose=0, return_dict=True)


def classifies(model: keras.Model) -> bool:
    """Whether a compiled model's loss or metrics are those of classes.

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
    """Of a loss or metric, whether a function or an object."""
    name = getattr(value, "name", None) or getattr(value, "__name__", "")
    return f"{name} {type(value).__name__}".replace("_", "").lower()


def _anew(value: Any) -> Any:
    """A metric without what it has counted: that is the model's own."""
    if isinstance(value, keras.metrics.Metric):
        return type(value).from_config(value.get_config())
    return value
