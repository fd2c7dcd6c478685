"""The initialisation of the first paper."""

from collections.abc import Iterator

import keras
import numpy as np

from keras_lottery import checks


def glorot_normals(seed: int | None) -> Iterator[keras.initializers.Initializer]:
    """An endless sequence of Gaussian Glorot initialisers, one for each layer.

    Every layer gets a seed of its own: with the same seed, layers of the same shape
    would start from the same weights. Without a seed, Keras draws one, which
    `keras.utils.set_random_seed` governs.
    """
    if seed is not None:
        checks.seed("seed", seed)
    return _glorot_normals(seed)


def _glorot_normals(seed: int | None) -> Iterator[keras.initializers.Initializer]:
    sequence = np.random.SeedSequence(seed)
    while True:
        own = None if seed is None else int(sequence.spawn(1)[0].generate_state(1)[0])
        if own is not None and keras.backend.backend() == "torch":
            own %= 2**31  # Keras 3.12 accepts no larger seeds there.
        yield keras.initializers.GlorotNormal(seed=own)
