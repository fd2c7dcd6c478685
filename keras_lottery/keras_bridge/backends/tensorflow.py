"""Keras on TensorFlow."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.keras_bridge.backends import Backend
from keras_lottery.keras_bridge.internals.moments import moments_that_differentiate


def compiled(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """Compiles a function as a `tf.function` that does not warn about retracing.

    Args:
        function: the function to compile.
        how: keyword arguments of `tf.function`.
    """
    traced = tf.function(function, **how)
    return lambda *arguments: traced.get_concrete_function(*arguments)(*arguments)


class TensorFlow(Backend):
    """The backend interface on TensorFlow."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return compiled(function)

    def array(self, tensor: Any) -> np.ndarray:
        return np.asarray(tensor).copy()

    def seeded(self, seed: int) -> AbstractContextManager[None]:
        return nullcontext()

    def begin_step(self, seed: int, step: int) -> None:
        pass

    def gradient(
        self, function: Callable[[list[Any]], Any], values: list[Any]
    ) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(values)
        unused = tf.UnconnectedGradients.ZERO
        # The gradients of embeddings are sparse slices.
        found = tape.gradient(result, values, unconnected_gradients=unused)
        return [tf.convert_to_tensor(value) for value in found]

    def hessian_product(
        self, function: Callable[[list[Any]], Any], values: list[Any], along: list[Any]
    ) -> list[Any]:
        def slope(values: list[Any]) -> Any:
            pairs = zip(self.gradient(function, values), along, strict=True)
            return sum(tf.reduce_sum(one * vector) for one, vector in pairs)

        with moments_that_differentiate():
            return self.gradient(slope, values)

    def read_mask(self, mask: Any) -> None:
        pass

    def mask_of_step(self, mask: Any, weight: Any) -> Any:
        return mask

    def ready(self, data: Any, batch_size: int) -> Any:
        # `evaluate` would make a data set from the arrays at every call, which takes
        # longer than evaluating a small network. A list would be stacked to one tensor.
        parts = keras.tree.lists_to_tuples(data)
        whole = len(keras.tree.flatten(parts)[0]) % batch_size == 0
        # If all batches are whole, their size is known, which Keras 3.12 needs for
        # states.
        return tf.data.Dataset.from_tensor_slices(parts).batch(batch_size, whole)

    def is_distributed(self, model: Any) -> bool:
        here = tf.distribute.get_strategy()
        return tf.distribute.has_strategy() or model.distribute_strategy is not here

    def scope_of(self, model: Any) -> AbstractContextManager[None]:
        return model.distribute_strategy.scope()

    def replicas(self) -> int:
        return tf.distribute.get_strategy().num_replicas_in_sync

    def summed(self, gradient: Any) -> Any:
        replica = tf.distribute.get_replica_context()
        if replica is None or self.replicas() == 1:
            return gradient
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, gradient)

    def on_accelerator(self) -> bool:
        return bool(tf.config.list_logical_devices("GPU"))

    def free_memory(self) -> int | None:
        return None


BACKEND = TensorFlow()
"""The backend on TensorFlow."""
