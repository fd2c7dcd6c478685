"""Keras on JAX."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import keras
import numpy as np

from keras_lottery.keras_bridge.backends import Backend
from keras_lottery.keras_bridge.internals.layers import has_value


class Jax(Backend):
    """The backend interface on JAX."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function)

    def array(self, tensor: Any) -> np.ndarray:
        return np.asarray(tensor).copy()

    def seeded(self, seed: int) -> AbstractContextManager[None]:
        return nullcontext()

    def begin_step(self, seed: int, step: int) -> None:
        pass

    def gradient(
        self, function: Callable[[list[Any]], Any], values: list[Any]
    ) -> list[Any]:
        return jax.grad(function)(values)

    def hessian_product(
        self, function: Callable[[list[Any]], Any], values: list[Any], along: list[Any]
    ) -> list[Any]:
        return jax.jvp(jax.grad(function), (values,), (along,))[1]

    def read_mask(self, mask: Any) -> None:
        value = keras.ops.convert_to_tensor(mask)
        passes = isinstance(value, jax.core.Tracer) or not has_value(mask)
        mask.read_in_step = value if passes else None

    def mask_of_step(self, mask: Any, weight: Any) -> Any:
        # An update receives the weights' values but not the masks', which a compiled
        # step would treat as constants. The same step has read the mask before, unless
        # gradients and updates are separate programs.
        weight = keras.ops.convert_to_tensor(weight)
        value = getattr(mask, "read_in_step", None)
        if not isinstance(weight, jax.core.Tracer):
            # The step is not compiled, and `fit` holds the values.
            return mask if has_value(mask) else value
        if not isinstance(value, jax.core.Tracer):
            # The whole step is not compiled; the loss scale compiles a part of it.
            return None if has_value(mask) else value
        # `Tracer._trace` and `Trace.parent_trace`, seen on JAX 0.10: the program that
        # is traced, and the one around it. Values of other programs cannot be used.
        trace = weight._trace
        while trace is not None:
            if trace is value._trace:
                return value
            trace = getattr(trace, "parent_trace", None)
        return None

    def ready(self, data: Any, batch_size: int) -> Any:
        return data

    def is_distributed(self, model: Any) -> bool:
        return False  # only `keras.distribution` does

    def scope_of(self, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def replicas(self) -> int:
        return 1

    def summed(self, gradient: Any) -> Any:
        return gradient

    def on_accelerator(self) -> bool:
        return jax.default_backend() != "cpu"

    def free_memory(self) -> int | None:
        stats = jax.local_devices()[0].memory_stats()
        if stats and "bytes_limit" in stats:
            return stats["bytes_limit"] - stats["bytes_in_use"]
        return None


BACKEND = Jax()
"""The backend on JAX."""
