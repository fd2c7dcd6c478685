"""The paper's initialisation."""

from collections.abc import Iterator

import keras
import numpy as np

from keras_lottery import checks


def glorot_normals(seed: int | None) -> Iterator[keras.initializers.Initializer]:
    """Gaussian Glorot initialisers without end, one for each layer.

    Every layer gets a seed of its own: with one seed for all, layers of the same
    shape would start from the same weights. Without a seed Keras draws one
    (`keras.utils.set_random_seed` governs it).
    """
    if seed is not None:
        checks.seed("seed", seed)
    return _glorot_normals(seed)


def _glorot_normals(seed: int | None) -> Iterator[keras.initializers.Initializer]:
    sequence = np.random.SeedSequence(seed)
    while True:
        own = None if seed is None else int(sequence.spawn(1)[0].generate_state(1)[0])
        if own is not None and keras.backend.backend() == "torch":
            own %= 2**31  # Keras 3.12 takes no larger ones there.
        yield keras.initializers.GlorotNormal(seed=own)
