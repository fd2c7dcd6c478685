"""What depends on the backend of Keras: one file for each, behind one interface."""

import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

BACKENDS = ("tensorflow", "jax", "torch")
"""Those that the library works on: each has a module here, with its `BACKEND`."""


class Backend(ABC):
    """What is asked of a backend."""

    @abstractmethod
    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of structures of tensors, compiled for each of their shapes."""

    @abstractmethod
    def array(self, tensor: Any) -> np.ndarray:
        """A copy of a tensor or variable, in an array of its own."""

    @abstractmethod
    def seeded(self, seed: int) -> AbstractContextManager[None]:
        """Inside, what the backend draws by itself is of a seed; then it goes on.

        Most draw by the generators of Keras alone, which are variables of the model.
        """

    @abstractmethod
    def begin_step(self, seed: int, step: int) -> None:
        """Is told that a training step begins, inside `seeded`.

        What the step draws is its own then, wherever a training started.
        """

    @abstractmethod
    def gradient(
        self, function: Callable[[list[Any]], Any], values: list[Any]
    ) -> list[Any]:
        """The derivatives of a scalar function by a list of tensors."""

    @abstractmethod
    def hessian_product(
        self, function: Callable[[list[Any]], Any], values: list[Any], along: list[Any]
    ) -> list[Any]:
        """Its matrix of second derivatives, times a list of tensors of their shapes."""

    @abstractmethod
    def read_mask(self, mask: Any) -> None:
        """Is told that a layer reads a mask, a variable."""

    @abstractmethod
    def mask_of_step(self, mask: Any, weight: Any) -> Any:
        """The mask for an update of a weight, or None where it cannot be told."""

    @abstractmethod
    def ready(self, data: Any, batch_size: int) -> Any:
        """Arrays that are evaluated again and again, as `evaluate` takes them best."""

    @abstractmethod
    def is_distributed(self, model: Any) -> bool:
        """Whether the backend's own means train a model on several devices."""

    @abstractmethod
    def scope_of(self, model: Any) -> AbstractContextManager[None]:
        """Inside, new variables lie where those of a model do."""

    @abstractmethod
    def replicas(self) -> int:
        """How many copies of a model the gradients of are added up, in a step."""

    @abstractmethod
    def summed(self, gradient: Any) -> Any:
        """A gradient that a replica has in its step, summed over all of them."""

    @abstractmethod
    def on_accelerator(self) -> bool:
        """Whether it computes on something else than processors."""

    @abstractmethod
    def free_memory(self) -> int | None:
        """Bytes that are free on its device, or None where that has none of its own."""


def current() -> Backend:
    """The backend that Keras works on.

    >>> current().replicas()
    1
    """
    import keras

    name = keras.backend.backend()
    return importlib.import_module(f"{__name__}.{name}").BACKEND


def check_backend(name: str | None = None) -> None:
    """Raises ImportError unless Keras works on a backend that the library knows.

    Args:
        name: the backend; by default the one that Keras works on, or will.
    """
    if name is None and "keras" not in sys.modules:
        # Keras itself would ask for the backend to be installed first.
        name = os.environ.get("KERAS_BACKEND")
    if not name:
        import keras

        name = keras.backend.backend()
    if name not in BACKENDS:
        raise ImportError(
            f"keras_lottery works on Keras's backends {', '.join(BACKENDS)}. "
            f"Received: {name}. Set KERAS_BACKEND to one of them before Keras is "
            "imported."
        )
