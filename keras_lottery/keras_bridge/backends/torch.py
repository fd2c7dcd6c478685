"""Keras on torch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import ml_dtypes
import numpy as np
import torch

from keras_lottery.keras_bridge.backends import Backend


class Torch(Backend):
    """The backend interface on torch."""

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function  # Keras itself does not compile by default.

    def array(self, tensor: Any) -> np.ndarray:
        value = tensor.value if isinstance(tensor, keras.Variable) else tensor
        value = value.detach().cpu()
        if value.dtype is torch.bfloat16:
            return value.float().numpy().astype(ml_dtypes.bfloat16)
        return value.numpy().copy()

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        # Dropout without its own seed draws from torch's generator.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield

    def begin_step(self, seed: int, step: int) -> None:
        (own,) = np.random.SeedSequence([seed, step]).generate_state(1)
        torch.manual_seed(int(own))

    def gradient(
        self, function: Callable[[list[Any]], Any], values: list[Any]
    ) -> list[Any]:
        return [slope.detach() for slope in _slopes(function, values, twice=False)[0]]

    def hessian_product(
        self, function: Callable[[list[Any]], Any], values: list[Any], along: list[Any]
    ) -> list[Any]:
        slopes, values = _slopes(function, values, twice=True)
        pairs = zip(slopes, along, strict=True)
        product = sum((one * vector).sum() for one, vector in pairs)
        if not product.requires_grad:
            return [torch.zeros_like(value) for value in values]  # It is linear.
        return list(torch.autograd.grad(product, values, materialize_grads=True))

    def read_mask(self, mask: Any) -> None:
        pass

    def mask_of_step(self, mask: Any, weight: Any) -> Any:
        return mask

    def ready(self, data: Any, batch_size: int) -> Any:
        return data

    def is_distributed(self, model: Any) -> bool:
        return False

    def scope_of(self, model: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def replicas(self) -> int:
        return 1

    def summed(self, gradient: Any) -> Any:
        return gradient

    def on_accelerator(self) -> bool:
        return torch.cuda.is_available()

    def free_memory(self) -> int | None:
        return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


def _slopes(
    function: Callable[[list[Any]], Any], values: list[Any], twice: bool
) -> tuple[list[Any], list[Any]]:
    """Returns the derivatives, and the values for differentiating them again."""
    with torch.enable_grad():
        values = [value.detach().requires_grad_() for value in values]
        result = function(values)
        if not result.requires_grad:
            return [torch.zeros_like(value) for value in values], values
        slopes = torch.autograd.grad(
            result, values, create_graph=twice, materialize_grads=True
        )
    return list(slopes), values


BACKEND = Torch()
"""The backend on torch."""
