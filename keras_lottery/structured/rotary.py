"""Attention with rotary positions, whose heads can be removed."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_lottery")
class RotaryAttention(keras.layers.Layer):
    """Self-attention with grouped queries and rotary positions.

    `inline` puts it in place of the attention of keras-hub's Gemma and Llama, which
    cannot be rebuilt with another number of heads. Queries and keys are rotated by
    angles that grow with the position (Su et al. 2021, RoFormer).

    Args:
        head_dim: the width of a head, an even number.
        num_query_heads: the number of heads of queries.
        num_key_value_heads: the number of heads of keys and values, a divisor of the
            number of heads of queries.
        frequencies: half as many numbers as a head is wide: by how many radians a
            position rotates entries i and i + head_dim / 2 of a head.
        kernel_initializer: the initialiser of the projections.
    """

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        frequencies: Sequence[float],
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.head_dim = head_dim
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads
        self.frequencies = list(frequencies)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        queries, keys = (num_query_heads, head_dim), (num_key_value_heads, head_dim)
        self.query = self._projection("query", "btm,muh->btuh", (None, *queries))
        self.key = self._projection("key", "btm,mvh->btvh", (None, *keys))
        self.value = self._projection("value", "btm,mvh->btvh", (None, *keys))

    def build(self, shape: Sequence[int | None]) -> None:
        for layer in (self.query, self.key, self.value):
            layer.build(shape)
        self.output_dense = self._projection(
            "attention_output", "btuh,uhm->btm", (None, shape[-1])
        )
        self.output_dense.build((None, None, self.num_query_heads, self.head_dim))

    def call(self, inputs: Any, attention_mask: Any = None) -> Any:
        """Returns a tensor of the inputs' shape (batch, length, width).

        Args:
            inputs: the tensor.
            attention_mask: (batch, length, length): which positions (last axis) each
                position sees; not zero where it does.
        """
        groups = self.num_query_heads // self.num_key_value_heads
        mask = attention_mask
        if mask is not None:
            mask = ops.expand_dims(ops.cast(mask, "bool"), axis=1)
        result = ops.dot_product_attention(
            self._rotated(self.query(inputs)),
            ops.repeat(self._rotated(self.key(inputs)), groups, axis=2),
            ops.repeat(self.value(inputs), groups, axis=2),
            mask=mask,
        )
        return self.output_dense(result)

    def compute_output_shape(
        self, shape: tuple[int | None, ...], *_: Any
    ) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "frequencies": self.frequencies,
            "kernel_initializer": initializer,
        }

    def _projection(
        self, name: str, equation: str, shape: tuple[int | None, ...]
    ) -> keras.layers.EinsumDense:
        return keras.layers.EinsumDense(
            equation,
            output_shape=shape,
            # An instance would draw the same values for each of them.
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )

    def _rotated(self, x: Any) -> Any:
        """Rotates (batch, length, heads, width) by the positions along the length."""
        places = ops.arange(ops.shape(x)[1], dtype="float32")
        frequencies = ops.convert_to_tensor(self.frequencies, dtype="float32")
        angles = places[:, None, None] * frequencies
        cos, sin = (
            ops.cast(ops.cos(angles), x.dtype),
            ops.cast(ops.sin(angles), x.dtype),
        )
        one, other = ops.split(x, 2, axis=-1)
        return ops.concatenate(
            [one * cos - other * sin, other * cos + one * sin], axis=-1
        )
