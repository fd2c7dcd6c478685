"""The fused engine's loops on JAX."""

from typing import Any

import keras
import numpy as np

from keras_lottery.engines.engine import EVALUATION_BATCH
from keras_lottery.layers import named_masks
from keras_lottery.layers.masked import premasked

State = tuple[list[Any], list[Any], list[Any]]
"""Values of the trainable, the other and the optimizer's variables."""


class JaxLoop:
    """A `lax.fori_loop` over the steps, whose buffers are used again.

    Args:
        model: a compiled masked model whose optimizer is built.
        parts: arrays (x, y, sample weights or None), by part of the data.
        weights: sample weights of the training, or None.
        shape: steps of an epoch, examples in a batch.
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
        self.parts = {name: _on_device(part) for name, part in parts.items()}
        self.batches = (*self.parts["train"][:2], _on_device(weights))
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
        self._train = jax.jit(self.steps, donate_argnums=0)
        self._evaluation = jax.jit(self.evaluation)

    def compile(self) -> None:
        """Compiles training and validation, changing nothing."""
        self.train(np.zeros(self.shape, "int32"), 0, 0)
        self.evaluate("validation")

    @property
    def variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        """The variables whose values are a `State`."""
        return self.trainable, self.others, list(self.model.optimizer.variables)

    def train(self, order: Any, first: int, last: int) -> None:
        """Trains the batches `first` to `last` of an epoch, and waits for the end."""
        import jax

        state = self._train(
            values(self.variables), values(self.fixed), self.batches, order, first, last
        )
        assign(self.variables, jax.block_until_ready(state))

    def evaluate(self, part: str) -> dict[str, float]:
        """The model's loss and metrics on a part of the data."""
        logs = self._evaluation(
            values((self.trainable, self.others)), values(self.fixed), self.parts[part]
        )
        return {k: float(value) for k, value in logs.items() if not np.ndim(value)}

    def steps(
        self,
        state: State,
        masks: list[Any],
        batches: Any,
        order: Any,
        first: Any,
        last: Any,
    ) -> State:
        """The state after the batches `first` to `last` of an epoch."""
        import jax

        def step(i: Any, state: State) -> State:
            batch = jax.tree.map(lambda array: array[order[i]], batches)
            return self._step(state, masks, batch)

        with premasked():
            return jax.lax.fori_loop(first, last, step, state)

    def _step(self, state: State, masks: list[Any], batch: Any) -> State:
        import jax
        import jax.numpy as jnp

        model = self.model
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
        if self.zeros:
            for i, j in self.masked.items():
                trainable[j] = jnp.where(masks[i], trainable[j], 0)
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
        """Loss and metrics of a state on a part of the data."""
        import jax
        import jax.numpy as jnp

        model = self.model
        trainable, others = state
        non_trainable = self._non_trainable(others, masks)
        n = len(jax.tree.leaves(part)[0])

        def step(first: Any, size: int, metrics: list[Any]) -> list[Any]:
            batch = jax.tree.map(
                lambda array: jax.lax.dynamic_slice_in_dim(array, first, size), part
            )
            _, (_, _, metrics) = model.test_step(
                (trainable, non_trainable, metrics), batch
            )
            return metrics

        def whole(i: Any, metrics: list[Any]) -> list[Any]:
            return step(i * EVALUATION_BATCH, EVALUATION_BATCH, metrics)

        count, rest = divmod(n, EVALUATION_BATCH)
        metrics = [jnp.asarray(value) for value in self._metrics]
        with premasked():
            if count:
                metrics = jax.lax.fori_loop(0, count, whole, metrics)
            if rest:
                metrics = step(n - rest, rest, metrics)
        mapping = list(zip(model.metrics_variables, metrics, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return model.get_metrics_result()

    def _non_trainable(self, others: list[Any], masks: list[Any]) -> list[Any]:
        found = {id(v): value for v, value in zip(self.others, others, strict=True)}
        found |= {id(v): value for v, value in zip(self.fixed, masks, strict=True)}
        return [found[id(v)] for v in self.model.non_trainable_variables]


def values(variables: Any) -> Any:
    """The values of a structure of variables."""
    return keras.tree.map_structure(lambda variable: variable.value, variables)


def assign(variables: Any, state: Any) -> None:
    """Gives a structure of variables its values."""
    keras.tree.map_structure(lambda v, value: v.assign(value), variables, state)


def _on_device(arrays: Any) -> Any:
    import jax

    return jax.tree.map(lambda array: jax.device_put(np.asarray(array)), arrays)
