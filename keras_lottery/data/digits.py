"""The digits of scikit-learn: 1,797 images of 8x8 pixels, which need no download."""

import numpy as np

from keras_lottery.data.splits import Size, Splits, hold_out, make_splits


def load_digits(validation: Size | None, seed: int) -> Splits:
    """Loads scikit-learn's digits; every part has the same distribution of classes."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    # The data set has no test part: a fifth becomes one, whatever the seed.
    train, test = hold_out((x, y), 360, seed=0, stratify=True)
    return make_splits(
        "digits",
        {"train": train, "test": test},
        classes=10,
        validation=validation,
        default=540,
        seed=seed,
        stratify=True,
    )
