"""The calibration of classifiers: whether confidence agrees with accuracy."""

from typing import Any

import numpy as np

from keras_lottery import checks


def calibration_error(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """The expected calibration error of a classifier.

    Examples are put into bins of equal width by their confidence, the probability of
    the predicted class. The error is the mean over examples of the distance between
    their bin's accuracy and its mean confidence: 0 if the classifier is right as often
    as it claims to be.

    Args:
        probabilities: the probability of each class, of shape (n, classes). Apply
            `keras.ops.softmax` first if the model returns logits.
        labels: the right classes, whole numbers of shape (n,) or (n, 1).
        bins: the number of bins.

    Returns:
        The error, from 0 to 1.

    Raises:
        ValueError: if the rows of `probabilities` are not probabilities, `labels` are
            not their classes, or `bins` is below 1.

    Reference:
        Guo et al., [On calibration of modern neural networks](
        https://arxiv.org/abs/1706.04599), 2017, equation 3.

    Example:

    >>> certain = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    >>> round(calibration_error(certain, np.array([0, 0, 1, 0])), 3)  # 3 of 4 are right
    0.15
    """
    checks.count("bins", bins, 1)
    found = checks.array("probabilities", probabilities, dimensions=(2,))
    if not len(found) or found.min() < 0 or np.abs(found.sum(1) - 1).max() > 1e-3:
        form = "probabilities of shape (n, classes), whose rows sum to 1"
        remedy = "Apply `keras.ops.softmax` to logits."
        checks.refuse("probabilities", form, probabilities, remedy)
    right = checks.array("labels", labels, dimensions=(1, 2))
    n, classes = found.shape
    is_class = right.dtype.kind in "iu" and right.size == n == len(right)
    if not is_class or right.min() < 0 or right.max() >= classes:
        form = (
            f"whole numbers for `probabilities` of shape {found.shape}, one for "
            f"each row, from 0 to {classes - 1}"
        )
        checks.refuse("labels", form, labels)
    confidence = found.max(1).astype("float64")
    hit = found.argmax(1) == right.ravel()
    # A confidence on the border of two bins belongs to the lower one.
    which = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    distance = np.bincount(which, hit - confidence, bins)
    return float(np.abs(distance).sum() / n)
