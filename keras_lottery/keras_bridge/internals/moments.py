"""The mean and the variance that normalisation layers compute from a batch.

Everything here was seen on Keras 3.15.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from keras_lottery.keras_bridge.internals.versions import tensorflow_nn

_lock = threading.RLock()


@contextlib.contextmanager
def moments_that_differentiate() -> Iterator[None]:
    """Inside, moments on TensorFlow have the right second derivatives.

    `keras.src.backend.tensorflow.nn._compute_moments`, seen on Keras 3.15, and in
    `ops.nn` on a pre-release of 3.16. It uses `tf.nn.moments`, which treats the mean
    inside the variance as a constant. That changes second derivatives but no first
    ones: GraSP's scores were wrong by 2e-2 of the largest in a network with
    BatchNormalization. Values and first derivatives stay the same, so that the change
    does not affect other threads.
    """
    import tensorflow as tf

    nn = tensorflow_nn()

    def moments(x: Any, axes: Any, keepdims: bool) -> tuple[Any, Any]:
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(
            tf.math.squared_difference(x, mean), axes, keepdims=True
        )
        if keepdims:
            return mean, variance
        return tf.squeeze(mean, axes), tf.squeeze(variance, axes)

    with _lock:
        before, nn._compute_moments = nn._compute_moments, moments
        try:
            yield
        finally:
            nn._compute_moments = before
