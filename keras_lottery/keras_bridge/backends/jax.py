"""Keras on JAX."""

from collections.abc import Callable
from typing import Any

import jax

from keras_lottery.keras_bridge.backends import Backend


class Jax(Backend):
    """What depends on the backend, on JAX."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function)

    def gradient(
        self, function: Callable[[list[Any]], Any], values: list[Any]
    ) -> list[Any]:
        return jax.grad(function)(values)

    def hessian_product(
        self, function: Callable[[list[Any]], Any], values: list[Any], along: list[Any]
    ) -> list[Any]:
        return jax.jvp(jax.grad(function), (values,), (along,))[1]

    def ready(self, data: Any, batch_size: int) -> Any:
        return data

    def is_distributed(self, model: Any) -> bool:
        return False  # but by `keras.distribution`

    def replicas(self) -> int:
        return 1

    def on_accelerator(self) -> bool:
        return jax.default_backend() != "cpu"

    def free_memory(self) -> int | None:
        stats = jax.local_devices()[0].memory_stats()
        if stats and "bytes_limit" in stats:
            return stats["bytes_limit"] - stats["bytes_in_use"]
        return None


BACKEND = Jax()
"""The only one."""
