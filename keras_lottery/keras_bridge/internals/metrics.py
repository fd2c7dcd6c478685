"""The direction in which the metrics of a model should change.

Everything here was seen on Keras 3.15.
"""

import keras


def direction_of(model: keras.Model, name: str) -> str | None:
    """Returns whether a metric should rise or fall, or None if Keras does not know.

    `Metric._direction`, which `EarlyStopping(mode="auto")` reads, seen on Keras 3.15.
    Without it, the user has to state the direction of every metric.

    Args:
        model: a compiled model that has been evaluated.
        name: the metric's name as the model reports it, which starts with the output's
            name if there are several outputs.

    Returns:
        `"max"`, `"min"` or `None`.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse", metrics=["mae", "r2_score"])
    >>> _ = model.evaluate(keras.ops.ones((3, 2)), keras.ops.ones((3, 1)), verbose=0)
    >>> [direction_of(model, name) for name in ("loss", "mae", "r2_score")]
    ['min', 'min', 'max']
    """
    if name == "loss" or name.endswith("_loss"):
        return "min"
    metrics = [
        metric
        for group in model.metrics
        for metric in getattr(group, "metrics", [group])
        if metric.name in name
    ]
    # The name "mae_of_heads" also contains "mae".
    longest = max((len(metric.name) for metric in metrics), default=0)
    found = {
        getattr(metric, "_direction", None)
        for metric in metrics
        if len(metric.name) == longest
    }
    return {"up": "max", "down": "min"}.get(str(*found)) if len(found) == 1 else None
