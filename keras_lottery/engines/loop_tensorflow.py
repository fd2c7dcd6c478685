"""The fused engine's loops on TensorFlow."""

from functools import partial
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.convolutions import convolves
from keras_lottery.engines.evaluation import EVALUATION_BATCH
from keras_lottery.keras_bridge.internals.layers import random_generators
from keras_lottery.keras_bridge.internals.models import compute_loss
from keras_lottery.keras_bridge.layers import named_masks, walk
from keras_lottery.keras_bridge.layers.masked import premasked, unprojected


class Loop:
    """Trains and evaluates a model in a `tf.while_loop`, with or without XLA.

    Args:
        model: a compiled masked model whose optimizer is built.
        parts: arrays (x, y, sample weights or None) on the device, by part of the data.
        weights: sample weights of the training data, on the device, or None.
        shape: the number of steps in an epoch, and of examples in a batch.
        zeros: whether the optimizer moves pruned weights that have no gradient.
    """

    def __init__(
        self,
        model: keras.Model,
        parts: dict[str, Any],
        weights: Any,
        shape: tuple[int, int],
        zeros: bool,
    ) -> None:
        self.model = model
        self.zeros = zeros
        self.shape = shape
        self.parts = parts
        self.batches = (*parts["train"][:2], weights)
        trained = {id(variable) for variable in model.trainable_variables}
        self.masks = {
            id(weight): mask
            for mask, weight in named_masks(model).values()
            if id(weight) in trained
        }
        self.xla = xla_pays(model)

    def compile(self) -> None:
        """Compiles training and validation without changing the model."""
        try:
            self._compile()
        except Exception:
            if not self.xla:
                raise
            # XLA does not support all operations.
            self.xla = False
            self._compile()

    def _compile(self) -> None:
        from keras_lottery.keras_bridge.backends import tensorflow

        compiled = partial(tensorflow.compiled, jit_compile=self.xla, autograph=False)
        self._train = compiled(self._steps)
        self._evaluations = {name: compiled(self._evaluation) for name in self.parts}
        self.train(np.zeros(self.shape, "int32"), 0, 0)
        self.evaluate("validation")

    def train(self, order: Any, first: int, last: int) -> None:
        """Trains on the batches `first` up to `last` of an epoch, and waits."""
        import tensorflow as tf

        self._train(tf.constant(order), tf.constant(first), tf.constant(last))
        # On accelerators, the call returns before its work is done.
        self.model.optimizer.iterations.numpy()

    def evaluate(self, part: str) -> dict[str, float]:
        """The model's loss and metrics on a part of the data."""
        logs = self._evaluations[part](self.parts[part])
        return {k: float(value) for k, value in logs.items() if not np.ndim(value)}

    def _steps(self, order: Any, first: Any, last: Any) -> None:
        import tensorflow as tf

        masks = {key: tf.convert_to_tensor(mask) for key, mask in self.masks.items()}

        def step(i: Any) -> tuple[Any]:
            chosen = order[i]
            batch = keras.tree.map_structure(
                lambda array: _rows(array, chosen), self.batches
            )
            self._step(batch, masks)
            return (i + 1,)

        free = () if self.zeros else self.model.trainable_variables
        with premasked(), unprojected(free):
            tf.while_loop(lambda i: i < last, step, (first,), parallel_iterations=1)

    def _step(self, batch: tuple[Any, Any, Any], masks: dict[int, Any]) -> None:
        import tensorflow as tf

        model, (x, y, weights) = self.model, batch
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            trains = "training" in model.call_signature_parameters
            training = {"training": True} if trains else {}
            predicted = model(x, **training)
            loss = compute_loss(model, x, y, predicted, weights)
            loss = model.optimizer.scale_loss(loss)
        gradients = [
            gradient if gradient is None else _masked(gradient, masks.get(id(variable)))
            for gradient, variable in zip(
                tape.gradient(loss, variables), variables, strict=True
            )
        ]
        model.optimizer.apply(gradients, variables)

    def _evaluation(self, part: tuple[Any, Any, Any]) -> dict[str, Any]:
        import tensorflow as tf

        n = int(keras.tree.flatten(part)[0].shape[0])
        self.model.reset_metrics()

        def step(first: Any, size: int) -> None:
            batch = keras.tree.map_structure(
                lambda array: _rows(array, first + tf.range(size)), part
            )
            self.model.test_step(batch)

        def whole(i: Any) -> tuple[Any]:
            step(i * EVALUATION_BATCH, EVALUATION_BATCH)
            return (i + 1,)

        count, rest = divmod(n, EVALUATION_BATCH)
        with premasked():
            if count:
                tf.while_loop(lambda i: i < count, whole, (0,), parallel_iterations=1)
            if rest:
                step(n - rest, rest)
        return self.model.get_metrics_result()


def xla_pays(model: keras.Model) -> bool:
    """Whether XLA makes the training faster.

    On CPUs, XLA's convolutions are several times slower inside a loop. There, Keras
    also turns `jit_compile="auto"` into False, so that False says nothing about the
    user's choice.
    """
    import tensorflow as tf

    if model.jit_compile or tf.config.list_logical_devices("GPU"):
        return model.jit_compile
    layers = [model, *(layer for _, layer in walk(model))]
    # XLA draws other random numbers, so a training would differ from that of `fit`.
    draws = any(random_generators(layer) for layer in layers)
    supported = all(layer.supports_jit for layer in layers)
    return supported and not draws and not convolves(model)


def on_device(arrays: Any) -> Any:
    """The arrays of a structure, copied to the device."""
    import tensorflow as tf

    return keras.tree.map_structure(
        lambda array: None if array is None else tf.constant(single(array)), arrays
    )


def _rows(array: Any, indices: Any) -> Any:
    import tensorflow as tf

    return None if array is None else tf.gather(array, indices)


def single(array: Any) -> np.ndarray:
    """The array, rounded to Keras's own precision if it has double precision."""
    array = np.asarray(array)
    return array.astype(keras.config.floatx()) if array.dtype == "float64" else array


def _masked(value: Any, mask: Any) -> Any:
    import tensorflow as tf

    if mask is None:
        return value
    value = tf.convert_to_tensor(value)
    return tf.where(mask, value, tf.zeros_like(value))
