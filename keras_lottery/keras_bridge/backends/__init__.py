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
"""The supported backends: each has a module here, with its `BACKEND`."""


class Backend(ABC):
    """The interface of a backend."""

    @abstractmethod
    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function of structures of tensors, once for each shape."""

    @abstractmethod
    def array(self, tensor: Any) -> np.ndarray:
        """Returns a copy of a tensor or variable as a NumPy array."""

    @abstractmethod
    def seeded(self, seed: int) -> AbstractContextManager[None]:
        """Inside, the backend's own random numbers come from a seed.

        Afterwards they continue as before. Most backends draw only from Keras's
        generators, which are variables of the model.
        """

    @abstractmethod
    def begin_step(self, seed: int, step: int) -> None:
        """Is called at the start of a training step, inside `seeded`.

        The random numbers of a step then depend only on the seed and the step, wherever
        the training started.
        """

    @abstractmethod
    def gradient(
        self, function: Callable[[list[Any]], Any], values: list[Any]
    ) -> list[Any]:
        """Returns the derivatives of a scalar function with respect to tensors."""

    @abstractmethod
    def hessian_product(
        self, function: Callable[[list[Any]], Any], values: list[Any], along: list[Any]
    ) -> list[Any]:
        """Returns the Hessian of a scalar function, times a list of tensors."""

    @abstractmethod
    def read_mask(self, mask: Any) -> None:
        """Is called when a layer reads a mask, which is a variable."""

    @abstractmethod
    def mask_of_step(self, mask: Any, weight: Any) -> Any:
        """Returns the mask for an update of a weight, or None if it is not known."""

    @abstractmethod
    def ready(self, data: Any, batch_size: int) -> Any:
        """Returns arrays in the form that repeated calls of `evaluate` read fastest."""

    @abstractmethod
    def is_distributed(self, model: Any) -> bool:
        """Whether the backend's own mechanism trains a model on several devices."""

    @abstractmethod
    def scope_of(self, model: Any) -> AbstractContextManager[None]:
        """Inside, new variables are placed on the devices of a model's variables."""

    @abstractmethod
    def replicas(self) -> int:
        """Returns how many replicas' gradients are added up in a step."""

    @abstractmethod
    def summed(self, gradient: Any) -> Any:
        """Returns the gradient of a replica in its step, summed over all replicas."""

    @abstractmethod
    def on_accelerator(self) -> bool:
        """Whether the backend computes on a device other than the CPU."""

    @abstractmethod
    def free_memory(self) -> int | None:
        """Returns the free bytes on the device; None if it has no memory of its own."""


def current() -> Backend:
    """Returns the backend that Keras uses.

    >>> current().replicas()
    1
    """
    import keras

    name = keras.backend.backend()
    return importlib.import_module(f"{__name__}.{name}").BACKEND


def check_backend(name: str | None = None) -> None:
    """Raises ImportError unless Keras uses a supported backend.

    Args:
        name: the name of the backend; by default the one that Keras uses, or will use.
    """
    if name is None and "keras" not in sys.modules:
        # Importing Keras would fail first if the backend is not installed.
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
