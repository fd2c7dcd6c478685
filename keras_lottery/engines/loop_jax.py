"""The fused engine's loops on JAX.

On CPUs, XLA runs a convolution inside a loop tens of times slower than outside. Models
with convolutions therefore train with one program for each step there.
"""

from typing import Any

import keras
import numpy as np

from keras_lottery.engines.convolutions import convolves
from keras_lottery.engines.evaluation import EVALUATION_BATCH
from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.layers import named_masks
from keras_lottery.keras_bridge.layers.masked import premasked, unprojected

Values = tuple[list[Any], list[Any], list[Any]]
"""Values of the trainable, the other non-mask and the optimizer's variables."""


class Loop:
    """Trains and evaluates a model in a `lax.fori_loop` that reuses its buffers.

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
        import jax

        self.model = model
        self.zeros = zeros
        self.shape = shape
        self.parts = parts
        self.batches = (*parts["train"][:2], weights)
        weights_of = {id(mask): weight for mask, weight in named_masks(model).values()}
        self.trainable = list(model.trainable_variables)
        self.fixed = [v for v in model.non_trainable_variables if id(v) in weights_of]
        self.others = [
            v for v in model.non_trainable_variables if id(v) not in weights_of
        ]
        trained = {id(v): i for i, v in enumerate(self.trainable)}
        self.masked = {
            i: trained[id(weights_of[id(mask)])]
            for i, mask in enumerate(self.fixed)
            if id(weights_of[id(mask)]) in trained
        }
        model.reset_metrics()
        self._metrics = [np.array(v) for v in model.metrics_variables]
        self.slow_loops = convolves(model) and not backends.current().on_accelerator()
        self._train = jax.jit(self.steps, donate_argnums=0)
        self._train_one = jax.jit(self.step, donate_argnums=0)
        self._evaluation = jax.jit(self.evaluation)
        self._evaluate_one = jax.jit(self._add_batch, static_argnums=3)

    def compile(self) -> None:
        """Compiles training and validation without changing the model."""
        import jax

        order = np.zeros(self.shape, "int32")
        state = values(self.variables), values(self.fixed)
        # Where each step is its own program, training zero steps compiles none. This
        # traces one, so that a step that does not compile raises here.
        jax.eval_shape(self.step, *state, self.batches, order[0])
        self.train(order, 0, 0)
        self.evaluate("validation")

    @property
    def variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        """The variables whose values are `Values`."""
        return self.trainable, self.others, list(self.model.optimizer.variables)

    def train(self, order: Any, first: int, last: int) -> None:
        """Trains on the batches `first` up to `last` of an epoch, and waits."""
        import jax

        state, masks = values(self.variables), values(self.fixed)
        if self.slow_loops:
            for rows in order[first:last]:
                state = self._train_one(state, masks, self.batches, rows)
        else:
            state = self._train(state, masks, self.batches, order, first, last)
        assign(self.variables, jax.block_until_ready(state))

    def evaluate(self, part: str) -> dict[str, float]:
        """The model's loss and metrics on a part of the data."""
        state = values((self.trainable, self.others))
        masks, arrays = values(self.fixed), self.parts[part]
        if self.slow_loops:
            metrics = self._metrics
            for first, size in _batches(arrays):
                metrics = self._evaluate_one(state, masks, arrays, size, first, metrics)
            logs = self._logs(metrics)
        else:
            logs = self._evaluation(state, masks, arrays)
        return {k: float(value) for k, value in logs.items() if not np.ndim(value)}

    def steps(
        self,
        state: Values,
        masks: list[Any],
        batches: Any,
        order: Any,
        first: Any,
        last: Any,
    ) -> Values:
        """The state after training on the batches `first` up to `last` of an epoch."""
        import jax

        return jax.lax.fori_loop(
            first,
            last,
            lambda i, state: self.step(state, masks, batches, order[i]),
            state,
        )

    def step(self, state: Values, masks: list[Any], batches: Any, rows: Any) -> Values:
        """The state after a step on the given rows of the data."""
        free = () if self.zeros else self.trainable
        with premasked(), unprojected(free):
            return self._step(state, masks, batches, rows)

    def _step(self, state: Values, masks: list[Any], batches: Any, rows: Any) -> Values:
        import jax
        import jax.numpy as jnp

        model = self.model
        batch = jax.tree.map(lambda array: array[rows], batches)
        trainable, others, slots = state
        gradients, (_, _, non_trainable, _) = jax.grad(
            model.compute_loss_and_updates, has_aux=True
        )(
            trainable,
            self._non_trainable(others, masks),
            self._metrics,
            *batch,
            training=True,
            optimizer_variables=slots,
        )
        for i, j in self.masked.items():
            gradients[j] = jnp.where(masks[i], gradients[j], 0)
        trainable, slots = model.optimizer.stateless_apply(slots, gradients, trainable)
        fixed = {id(v) for v in self.fixed}
        others = [
            value
            for variable, value in zip(
                model.non_trainable_variables, non_trainable, strict=True
            )
            if id(variable) not in fixed
        ]
        return trainable, others, slots

    def evaluation(
        self, state: tuple[list[Any], list[Any]], masks: list[Any], part: Any
    ) -> dict[str, Any]:
        """The loss and metrics of a state on a part of the data."""
        import jax
        import jax.numpy as jnp

        metrics = [jnp.asarray(value) for value in self._metrics]
        *whole, (last, size) = _batches(part)
        if whole:
            metrics = jax.lax.fori_loop(
                0,
                len(whole),
                lambda i, metrics: self._add_batch(
                    state, masks, part, EVALUATION_BATCH, i * EVALUATION_BATCH, metrics
                ),
                metrics,
            )
        metrics = self._add_batch(state, masks, part, size, last, metrics)
        return self._logs(metrics)

    def _add_batch(
        self,
        state: tuple[list[Any], list[Any]],
        masks: list[Any],
        part: Any,
        size: int,
        first: Any,
        metrics: list[Any],
    ) -> list[Any]:
        """The metrics' variables after one more batch."""
        import jax

        trainable, others = state
        batch = jax.tree.map(
            lambda array: jax.lax.dynamic_slice_in_dim(array, first, size), part
        )
        variables = (trainable, self._non_trainable(others, masks), metrics)
        with premasked():
            _, (_, _, metrics) = self.model.test_step(variables, batch)
        return metrics

    def _logs(self, metrics: list[Any]) -> dict[str, Any]:
        mapping = list(zip(self.model.metrics_variables, metrics, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return self.model.get_metrics_result()

    def _non_trainable(self, others: list[Any], masks: list[Any]) -> list[Any]:
        found = {id(v): value for v, value in zip(self.others, others, strict=True)}
        found |= {id(v): value for v, value in zip(self.fixed, masks, strict=True)}
        return [found[id(v)] for v in self.model.non_trainable_variables]


def _batches(part: Any) -> list[tuple[int, int]]:
    """(first example, number of examples) of each batch of an evaluation."""
    n = len(keras.tree.flatten(part)[0])
    return [
        (first, min(EVALUATION_BATCH, n - first))
        for first in range(0, n, EVALUATION_BATCH)
    ]


def values(variables: Any) -> Any:
    """The values of a structure of variables."""
    return keras.tree.map_structure(lambda variable: variable.value, variables)


def assign(variables: Any, state: Any) -> None:
    """Assigns values to a structure of variables."""
    keras.tree.map_structure(lambda v, value: v.assign(value), variables, state)


def on_device(arrays: Any) -> Any:
    """The arrays of a structure, copied to the device."""
    import jax

    return jax.tree.map(lambda array: jax.device_put(np.asarray(array)), arrays)
